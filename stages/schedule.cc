#include "stages/schedule.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr double kPi = 3.14159265358979323846;

}  // namespace

double LearningRate(const OptimizerConfig& config, int64_t total_steps, Step step) {
  const int64_t at = static_cast<int64_t>(Value(step));
  if (at <= config.warmup) {
    return config.lr * static_cast<double>(at) / static_cast<double>(config.warmup);
  }
  const double lowest = config.min_lr == 0.0 ? config.lr / 10.0 : config.min_lr;
  const int64_t span = total_steps - config.warmup;
  const double progress =
      span <= 0
          ? 1.0
          : std::min(1.0, static_cast<double>(at - config.warmup) / static_cast<double>(span));
  return lowest + 0.5 * (config.lr - lowest) * (1.0 + std::cos(kPi * progress));
}

UpdateScalars MakeUpdate(const OptimizerConfig& config, int64_t total_steps, Step step,
                         double square_norm_of_sum, int64_t tokens, double* gradient_norm,
                         double* learning_rate) {
  STARLING_CHECK_GT(tokens, 0);
  const double norm = std::sqrt(square_norm_of_sum) / static_cast<double>(tokens);
  const double clip_scale = config.clip > 0.0 && norm > config.clip ? config.clip / norm : 1.0;
  const double rate = LearningRate(config, total_steps, step);
  const double power = static_cast<double>(Value(step));
  UpdateScalars scalars;
  scalars.grad_scale = static_cast<float>(clip_scale / static_cast<double>(tokens));
  scalars.beta1 = static_cast<float>(config.beta1);
  scalars.one_minus_beta1 = static_cast<float>(1.0 - config.beta1);
  scalars.beta2 = static_cast<float>(config.beta2);
  scalars.one_minus_beta2 = static_cast<float>(1.0 - config.beta2);
  scalars.step_size = static_cast<float>(rate / (1.0 - std::pow(config.beta1, power)));
  scalars.inv_sqrt_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(config.beta2, power)));
  scalars.epsilon = static_cast<float>(config.epsilon);
  scalars.decay = static_cast<float>(1.0 - rate * config.weight_decay);
  if (gradient_norm != nullptr) *gradient_norm = norm;
  if (learning_rate != nullptr) *learning_rate = rate;
  return scalars;
}

}  // namespace starling
