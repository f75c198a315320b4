#include "job/ending.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <new>
#include <system_error>

#include "util/error.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

template <typename Exception>
Ending of(const Exception& exception) {
    return ending_of(std::make_exception_ptr(exception));
}

TEST(Ending, AUsersMistakeAndAFaultOfTheProgram) {
    EXPECT_EQ(of(UserError("no such file")).exit_code, kUserError);
    EXPECT_EQ(of(UserError("no such file")).text, "no such file");
    EXPECT_EQ(of(InternalError("broken")).exit_code, kProgramFault);
    EXPECT_EQ(of(std::runtime_error("x")).label, "internal error");
    EXPECT_EQ(of(7).text, "an exception that is no std::exception");
}

// However it is noticed, it is the user's to mend, and said in one line.
TEST(Ending, TooLittleOfTheMachine) {
    const auto expect = [](const Ending& ending, const std::string& begin) {
        EXPECT_EQ(ending.exit_code, kUserError) << ending.text;
        EXPECT_EQ(ending.label, "error");
        EXPECT_TRUE(ending.text.starts_with(begin)) << ending.text;
        EXPECT_EQ(ending.text.find('\n'), std::string::npos) << ending.text;
    };
    expect(of(std::bad_alloc()), "too little memory: ");
    expect(of(std::system_error(ENOMEM, std::generic_category())), "too little memory: ");
    expect(of(std::system_error(EAGAIN, std::generic_category(), "thread")), "too little room for threads: ");
    try {
        TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate 20 GiB.");
    } catch (...) {
        expect(ending_of(std::current_exception()), "too little memory: CUDA out of memory");
    }
    try {
        TORCH_CHECK(false,
                    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried");
    } catch (...) {
        expect(ending_of(std::current_exception()), "too little memory: [enforce fail");
    }
}

TEST(Ending, LibTorchsStacksAndFilesEscapesAreLeftOut) {
    try {
        TORCH_CHECK(false, "shapes differ");
    } catch (...) {
        const Ending ending = ending_of(std::current_exception());
        EXPECT_EQ(ending.exit_code, kProgramFault);
        EXPECT_EQ(ending.text.find("frame #"), std::string::npos) << ending.text;
    }
    EXPECT_EQ(of(UserError("x\x1b[2J: cannot be read\nsecond line")).text,
              "x?[2J: cannot be read\nsecond line");
}

}  // namespace
}  // namespace speedrun
