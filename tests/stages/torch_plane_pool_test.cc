#include "stages/torch_plane_pool.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace starling {
namespace {

bool AreZeros(const at::Tensor& tensor) {
  const float* const values = tensor.data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    if (values[i] != 0) return false;
  }
  return true;
}

TEST(PlanePoolTest, GivesZerosInMemoryThatNobodyUses) {
  PlanePool pool(1000, 1);
  at::Tensor first = pool.Zeros();
  ASSERT_EQ(first.numel(), 1000);
  ASSERT_EQ(first.scalar_type(), at::kFloat);
  EXPECT_TRUE(AreZeros(first));
  const void* const block = first.data_ptr();
  first.data_ptr<float>()[7] = 5;
  const at::Tensor view = first.narrow(0, 3, 10);
  first = at::Tensor();
  EXPECT_NE(pool.Zeros().data_ptr(), block) << "a part of it is still in use";
  EXPECT_EQ(view.data_ptr<float>()[4], 5);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data_ptr()), reinterpret_cast<uintptr_t>(block) + 12);
}

TEST(PlanePoolTest, ABlockComesBackFromAnotherThread) {
  PlanePool pool(1000, 1);
  at::Tensor sum = pool.Zeros();
  void* const block = sum.data_ptr();
  sum.data_ptr<float>()[999] = 1;
  std::thread([last = std::move(sum)]() mutable { last = at::Tensor(); }).join();
  const at::Tensor again = pool.Zeros();
  EXPECT_EQ(again.data_ptr(), block);
  EXPECT_TRUE(AreZeros(again));
}

TEST(PlanePoolTest, MoreThanItKeepsAreFreedAndTensorsOutliveIt) {
  auto pool = std::make_unique<PlanePool>(100, 2);
  std::vector<at::Tensor> sums;
  for (int i = 0; i < 5; ++i) sums.push_back(pool->Zeros());
  sums.resize(1);
  pool.reset();
  EXPECT_TRUE(AreZeros(sums[0]));
}

}  // namespace
}  // namespace starling
