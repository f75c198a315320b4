#pragma once

// Before a function: one copy of it for AVX-512 and one for the baseline, chosen when the program is loaded.
// ThreadSanitizer is not ready yet where that choice is made.
#ifdef __SANITIZE_THREAD__
#define SPEEDRUN_VECTOR_CLONES
#else
#define SPEEDRUN_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "default")))
#endif
