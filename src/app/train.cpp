#include "app/verbs.h"
#include "util/error.h"

namespace speedrun {

int run_train(int, char**) {
    throw UserError("train: not built into this executable");
}

}  // namespace speedrun
