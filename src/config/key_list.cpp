#include "config/key_list.h"

namespace speedrun {
namespace {

class KeyList final : public Fields {
  public:
    std::vector<std::string> keys;

    bool describes() const override { return true; }
    void integer(Key key, int64_t&, IntRange) override { add(key); }
    void seed(Key key, uint64_t&) override { add(key); }
    void number(Key key, double&, NumberRange) override { add(key); }
    void boolean(Key key, bool&) override { add(key); }
    void text(Key key, std::string&) override { add(key); }
    void pick(Key key, size_t&, std::span<const char* const>) override { add(key); }
    void layers(Key key, std::vector<int64_t>&) override { add(key); }
    void texts(Key key, std::vector<std::string>&) override { add(key); }
    void numbers(Key key, std::vector<double>&, NumberRange, Count) override { add(key); }
    void dims(Key key, std::vector<int64_t>&, Count) override { add(key); }
    void init(Key key, std::vector<Init>&) override { add(key); }
    void weight(Key key, WeightRef&) override { add(key); }
    void coefficient(Key key, std::optional<Coefficient>&) override { add(key); }
    void mix(Key key, std::vector<MixTerm>&) override { add(key); }
    void object(Key key, const Visit&) override { add(key); }
    void nullable(Key key, bool&, const Visit&) override { add(key); }
    void list(Key key, size_t, const VisitItem&) override { add(key); }
    void named(Key key, std::span<const std::string>, const VisitNamed&) override { add(key); }
    void defaults(Key key, const Visit&) override { add(key); }

  private:
    void add(const Key& key) { keys.emplace_back(key.name); }
};

}  // namespace

std::vector<std::string> key_list(const Fields::Visit& visit) {
    KeyList list;
    visit(list);
    return list.keys;
}

}  // namespace speedrun
