#include "model/weights.h"

#include <ATen/ATen.h>

#include <cstring>
#include <optional>
#include <set>

#include "util/error.h"
#include "util/nearest.h"
#include "util/safetensors.h"
#include "util/shape.h"

namespace speedrun {
namespace {

using Path = std::filesystem::path;

// A tensor of the file and the part of a bank it goes to.
struct Match {
    Parameter* parameter;
    StateDictEntry entry;
    const SafeTensor* found;
};

std::string did_you_mean(const std::string& name, std::span<const std::string> candidates) {
    const std::string found = nearest(name.substr(0, 200), candidates);
    return found.empty() ? "" : " (nearest: '" + found.substr(0, 200) + "')";
}

std::optional<at::ScalarType> readable(const std::string& dtype) {
    if (dtype == "F32") return at::kFloat;
    if (dtype == "BF16") return at::kBFloat16;
    if (dtype == "F16") return at::kHalf;
    return {};
}

// The elements before the pad of a scalar parameter; all of them where it has no pad. Nothing for other
// parameters.
std::optional<int64_t> without_pad(const ParamConfig& config) {
    if (config.slices.empty() || config.shape.size() != 1) return {};
    const Slice& last = config.slices.back();
    return last.name == "pad" ? last.at : config.shape[0];
}

double pad_value(const ParamConfig& config) {
    const Slice& last = config.slices.back();
    return last.name == "pad" && !last.init.empty() ? last.init[0] : 1.0;
}

at::Tensor copy_of(const SafeTensor& found) {
    const at::Tensor out = at::empty(found.shape, *readable(found.dtype));
    if (!found.data.empty()) std::memcpy(out.data_ptr(), found.data.data(), found.data.size());
    return out;
}

void check_names(const SafetensorsFile& file, const std::vector<std::string>& wanted) {
    std::vector<std::string> present, extra, missing;
    for (const SafeTensor& tensor : file.tensors()) present.push_back(tensor.name);
    const std::set<std::string> want(wanted.begin(), wanted.end()), have(present.begin(), present.end());
    for (const std::string& name : present) {
        if (!want.contains(name)) extra.push_back(name);
    }
    for (const std::string& name : wanted) {
        if (!have.contains(name)) missing.push_back(name);
    }
    std::string what;
    if (!missing.empty()) {
        what += "; missing " + std::to_string(missing.size()) + " of " + std::to_string(wanted.size()) +
                " tensors, first '" + missing[0] + "'" + did_you_mean(missing[0], extra);
    }
    if (!extra.empty()) {
        what += "; has " + std::to_string(extra.size()) + " the model does not know, first '" +
                extra[0].substr(0, 200) + "'" + did_you_mean(extra[0], missing.empty() ? wanted : missing);
    }
    if (!what.empty()) throw UserError(file.path().string() + ": does not fit the model" + what);
}

// True where the file's tensor differs from the parameter in nothing but the length of its pad.
bool fits_but_pad(const Match& match) {
    const std::optional<int64_t> kept = without_pad(match.parameter->config);
    if (!kept || match.found->shape.size() != 1 || match.found->shape[0] < *kept) return false;
    const at::Tensor pad = copy_of(*match.found).narrow(0, *kept, match.found->shape[0] - *kept);
    return pad.eq(pad_value(match.parameter->config)).all().item<bool>();
}

// PyTorch's scalars have no dimension, and take one of 1 as well.
bool has_shape(const SafeTensor& found, const std::vector<int64_t>& wanted) {
    return found.shape == wanted || (found.shape.empty() && wanted == std::vector<int64_t>{1});
}

void check_match(const Path& path, const Match& match) {
    const SafeTensor& found = *match.found;
    if (!readable(found.dtype)) {
        throw UserError(path.string() + ": tensor '" + found.name + "' has dtype " + found.dtype +
                        "; F32, BF16 and F16 can be read");
    }
    if (has_shape(found, match.entry.shape) || fits_but_pad(match)) return;
    throw UserError(path.string() + ": tensor '" + found.name + "' has shape " + shape_text(found.shape) +
                    ", the model needs " + shape_text(match.entry.shape));
}

void copy_in(const Match& match) {
    const at::Tensor target = match.entry.of(match.parameter->value), found = copy_of(*match.found);
    if (has_shape(*match.found, match.entry.shape)) {
        target.copy_(found.view(target.sizes()));
        return;
    }
    const int64_t kept = without_pad(match.parameter->config).value();
    target.fill_(pad_value(match.parameter->config));
    target.narrow(0, 0, kept).copy_(found.narrow(0, 0, kept));
}

}  // namespace

void save_weights(const ParameterTable& table, const Path& path) {
    std::vector<at::Tensor> kept;  // alive until written; parts of a bank share its memory
    std::vector<SafeTensor> tensors;
    for (const Parameter& parameter : table.all()) {
        const std::string dtype = parameter.value.scalar_type() == at::kBFloat16 ? "BF16" : "F32";
        const at::Tensor bank = parameter.value.cpu().contiguous();
        for (const StateDictEntry& entry : state_dict_entries(parameter.config)) {
            const at::Tensor& part = kept.emplace_back(entry.of(bank).contiguous());
            const auto* data = static_cast<const std::byte*>(part.const_data_ptr());
            tensors.push_back({entry.name, dtype, entry.shape, {data, part.nbytes()}});
        }
    }
    write_safetensors(path, std::move(tensors), {{"format", "pt"}});
}

void load_weights(ParameterTable& table, const Path& path) {
    const SafetensorsFile file(path);
    std::vector<Match> matches;
    std::vector<std::string> wanted;
    for (Parameter& parameter : table.all()) {
        for (StateDictEntry& entry : state_dict_entries(parameter.config)) {
            wanted.push_back(entry.name);
            const SafeTensor* found = file.find(entry.name);
            matches.push_back({&parameter, std::move(entry), found});
        }
    }
    check_names(file, wanted);
    for (const Match& match : matches) check_match(path, match);
    for (const Match& match : matches) copy_in(match);
    file.check_unchanged();
    table.refresh();
}

}  // namespace speedrun
