#include "optim/basis.h"

#include <ATen/ATen.h>

namespace speedrun {

at::Tensor outer_product(const at::Tensor& g, size_t side) {
    return side == 0 ? g.matmul(g.mT()) : g.mT().matmul(g);
}

at::Tensor eigenvectors(const at::Tensor& average) {
    return std::get<1>(at::linalg_eigh(average.to(at::kDouble))).flip({-1}).to(at::kFloat);
}

at::Tensor into_basis(at::Tensor x, const Sides& sides) {
    if (sides[0].basis.defined()) x = sides[0].basis.mT().matmul(x);
    if (sides[1].basis.defined()) x = x.matmul(sides[1].basis);
    return x;
}

at::Tensor from_basis(at::Tensor x, const Sides& sides) {
    if (sides[0].basis.defined()) x = sides[0].basis.matmul(x);
    if (sides[1].basis.defined()) x = x.matmul(sides[1].basis.mT());
    return x;
}

void renew_basis(const Side& side, const at::Tensor& v, size_t which, bool sort) {
    at::Tensor product = side.average.matmul(side.basis);
    if (sort) {
        const at::Tensor values = (side.basis * product).sum(-2);  // diag(Q^T L Q), [n, side]
        const at::Tensor order = values.argsort(/*stable=*/true, -1, /*descending=*/true);
        const auto ordered = [&](const at::Tensor& x, int64_t along) {
            return x.gather(along, order.unsqueeze(along == -1 ? -2 : -1).expand_as(x));
        };
        v.copy_(ordered(v, which == 0 ? -2 : -1));
        product = ordered(product, -1);
    }
    side.basis.copy_(std::get<0>(at::linalg_qr(product)));
}

}  // namespace speedrun
