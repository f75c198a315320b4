#include "util/module.h"

#include <dlfcn.h>

#include "util/diagnostics.h"
#include "util/error.h"
#include "util/files.h"

namespace speedrun {
namespace {

std::filesystem::path executable_folder() {
    return files::executable().parent_path();
}

}  // namespace

bool have_module(const std::string& file) {
    return files::exists(executable_folder() / file);
}

void* module_symbol(const std::string& file, const char* symbol, const std::string& needs,
                    const std::filesystem::path& folder) {
    const std::filesystem::path path = (folder.empty() ? executable_folder() : folder) / file;
    if (!files::exists(path))
        throw UserError(path.string() + " is missing: this run needs it. The build makes it where it finds " +
                        needs + "; install that and build again");
    // Global, because what the library loads in turn looks for its symbols.
    void* const module = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (!module) throw UserError(path.string() + " cannot be loaded: " + dlerror() + "; it needs " + needs);
    debug("loaded {}", path.string());
    void* const found = dlsym(module, symbol);
    if (!found) throw UserError(path.string() + " is of another version of the program: " + dlerror());
    return found;
}

void* loaded_module_symbol(const std::string& file, const char* symbol) {
    void* const module = dlopen((executable_folder() / file).c_str(), RTLD_NOW | RTLD_NOLOAD);
    return module ? dlsym(module, symbol) : nullptr;
}

bool have_library(const char* name) {
    return dlopen(name, RTLD_LAZY) != nullptr;
}

}  // namespace speedrun
