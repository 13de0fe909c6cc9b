// The kernels for AVX2 and FMA.
#if !defined(__AVX2__) || !defined(__FMA__) || defined(__AVX512F__)
#error "compile this file with the AVX2 flags of CMakeLists.txt, and no wider ones"
#endif
#include "isa_avx2.h"

#include "all_kernels.h"

namespace pixeldp {
static_assert(sizeof(Isa::F) == 32, "the width that was asked for");
Kernels kernels_avx2() { return all_kernels("avx2", "fused"); }
}  // namespace pixeldp
