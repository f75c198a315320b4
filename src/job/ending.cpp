#include "job/ending.h"

#include <c10/util/Exception.h>

#include <new>
#include <system_error>

#include "util/error.h"
#include "util/exit_codes.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

Ending too_little(const std::string& what, const std::string& found_by) {
    const std::string first_line = found_by.substr(0, found_by.find('\n'));
    return {kUserError, "error", "too little " + what + ": " + first_line};
}

// LibTorch's allocator for CPUs has no exception of its own.
bool is_of_memory(const std::string& text) {
    return text.find("allocate memory") != std::string::npos ||
           text.find("not enough memory") != std::string::npos;
}

Ending ending_of_torch(const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    if (is_of_memory(text)) return too_little("memory", text);
    return {kProgramFault, "internal error", text};
}

Ending ending_of_system(const std::system_error& error) {
    if (error.code() == std::errc::not_enough_memory) return too_little("memory", error.what());
    if (error.code() == std::errc::resource_unavailable_try_again)
        return too_little("room for threads", error.what());
    return {kProgramFault, "internal error", error.what()};
}

Ending ending_as_told(const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const UserError& error) {
        return {kUserError, "error", error.what()};
    } catch (const std::bad_alloc&) {
        return too_little("memory", "an allocation was refused");
    } catch (const c10::OutOfMemoryError& error) {
        return too_little("memory", error.what_without_backtrace());
    } catch (const c10::Error& error) {
        return ending_of_torch(error);
    } catch (const std::system_error& error) {
        return ending_of_system(error);
    } catch (const std::exception& error) {
        return {kProgramFault, "internal error", error.what()};
    } catch (...) {
        return {kProgramFault, "internal error", "an exception that is no std::exception"};
    }
}

}  // namespace

Ending ending_of(const std::exception_ptr& exception) {
    Ending ending = ending_as_told(exception);
    ending.text = terminal_text(ending.text);  // it may quote a file's name or content
    return ending;
}

}  // namespace speedrun
