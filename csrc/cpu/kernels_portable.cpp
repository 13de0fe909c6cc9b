// The kernels for portable.
#include "isa_portable.h"

#include "all_kernels.h"

namespace pixeldp {
Kernels kernels_portable() { return all_kernels("portable", "unfused"); }
}  // namespace pixeldp
