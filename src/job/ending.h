#pragma once
#include <exception>
#include <string>

namespace speedrun {

// What an exception that nobody has caught means for the process.
struct Ending {
    int exit_code = 0;  // util/exit_codes.h
    std::string label;  // "error", "internal error"
    std::string text;   // one line where the cause is memory
};

// A UserError, or too little memory or too few threads, in whatever way that was noticed, is the user's to
// mend; everything else is a fault of the program. Without the C++ stacks that LibTorch's exceptions carry.
Ending ending_of(const std::exception_ptr& exception);

}  // namespace speedrun
