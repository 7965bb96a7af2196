// The loss of counting models, in nats per byte: what a trained model has to beat.
#ifndef STARLING_RUNTIME_DATA_BIGRAM_H_
#define STARLING_RUNTIME_DATA_BIGRAM_H_

#include "runtime/base/blob.h"

namespace starling {

// Fitted on `train`, measured on `validation` (u8 [bytes]; at least one byte, two for the bigram).
// The unigram counts bytes, one added to each. The bigram counts pairs and gives the unigram the
// weight of one observation of each first byte.
double UnigramLoss(const Blob& train, const Blob& validation);
double BigramLoss(const Blob& train, const Blob& validation);

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_BIGRAM_H_
