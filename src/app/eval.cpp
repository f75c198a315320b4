#include "app/verbs.h"
#include "util/error.h"

namespace speedrun {

int run_eval(int, char**) {
    throw UserError("eval: not built into this executable");
}

}  // namespace speedrun
