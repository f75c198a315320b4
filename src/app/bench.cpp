#include "app/verbs.h"
#include "util/error.h"

namespace speedrun {

int run_bench(int, char**) {
    throw UserError("bench: not built into this executable");
}

}  // namespace speedrun
