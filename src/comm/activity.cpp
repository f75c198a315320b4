#include "comm/activity.h"

namespace speedrun {

void Activity::begin(int64_t sequence, const std::string& what) {
    const std::lock_guard lock(mutex_);
    begun_ = sequence;
    what_ = what;
    inside_ = true;
}

void Activity::end(int64_t sequence) {
    const std::lock_guard lock(mutex_);
    if (begun_ == sequence) inside_ = false;
}

RankState Activity::sample(double elapsed_s) {
    const std::lock_guard lock(mutex_);
    const bool same = sampled_.begun == begun_ && sampled_.inside == inside_;
    sampled_.for_s = same ? sampled_.for_s + elapsed_s : 0;
    sampled_.step = step_.load(std::memory_order_relaxed);
    sampled_.begun = begun_;
    sampled_.what = what_;
    sampled_.inside = inside_;
    return sampled_;
}

}  // namespace speedrun
