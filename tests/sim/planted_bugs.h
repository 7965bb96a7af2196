// Which bug of runtime/base/planted.h is turned on, where the code is compiled with
// STARLING_PLANT_BUGS; and what they are called on the command line.
#ifndef STARLING_TESTS_SIM_PLANTED_BUGS_H_
#define STARLING_TESTS_SIM_PLANTED_BUGS_H_

#include <optional>
#include <string>

#include "runtime/base/planted.h"

namespace starling::sim {

// From now on, for the whole process. kNone: none.
void PlantBug(Bug bug);
// "sum_in_arrival_order", ...; none if there is no such bug.
std::optional<Bug> BugOf(const std::string& name);

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_PLANTED_BUGS_H_
