// The kernels for AVX-512.
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)
#error "compile this file with the AVX-512 flags of CMakeLists.txt"
#endif
#include "isa_avx512.h"

#include "all_kernels.h"

namespace pixeldp {
static_assert(sizeof(Isa::F) == 64, "the width that was asked for");
Kernels kernels_avx512() { return all_kernels("avx512", "fused"); }
}  // namespace pixeldp
