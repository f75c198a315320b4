#pragma once
#include "cuda_runtime.h"

// Copies happen as late as they may, so that what does not wait for them reads old bytes.
inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes, size_t zeros = 0) {
    cuda_emulation::copy_later(to, from, bytes, zeros);
}
inline void __pipeline_commit() {
    cuda_emulation::commit_copies();
}
inline void __pipeline_wait_prior(size_t groups) {
    cuda_emulation::finish_copies(groups);
}
