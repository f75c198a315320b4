#pragma once

namespace speedrun {

// What a process of the program says by its exit code. 0 is done. In a run of several ranks it is that of the
// first cause, the same on every rank that could still answer.
inline constexpr int kUserError = 2;      // a mistake in what was asked for
inline constexpr int kProgramFault = 3;   // a broken invariant, or an exception of a library
inline constexpr int kRankLost = 4;       // another rank died, does not answer, or is late
inline constexpr int kInterrupted = 130;  // stopped by a signal, with everything written

}  // namespace speedrun
