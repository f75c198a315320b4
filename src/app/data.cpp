#include "app/verbs.h"
#include "util/error.h"

namespace speedrun {

int run_data(int, char**) {
    throw UserError("data: not built into this executable");
}

}  // namespace speedrun
