#include "app/verbs.h"
#include "util/error.h"

namespace speedrun {

int run_generate(int, char**) {
    throw UserError("generate: not built into this executable");
}

}  // namespace speedrun
