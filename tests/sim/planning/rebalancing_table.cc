// Prints the tables of docs/benchmarks.md, "Placement and rebalancing".
//
//   rebalancing_table [SEEDS]      10 unless given
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "tests/sim/planning/comparison.h"

namespace starling {
namespace {

struct Row {
  Cell cell;
  std::vector<Comparison> seeds;

  double Mean(const std::function<double(const Comparison&)>& of) const {
    double sum = 0;
    for (const Comparison& comparison : seeds) sum += of(comparison);
    return sum / static_cast<double>(seeds.size());
  }
  double Throughput(Contender contender) const {
    return Mean([&](const Comparison& c) { return c.of(contender).throughput; });
  }
  double MovesPerHour(Contender contender) const {
    const double moves =
        Mean([&](const Comparison& c) { return static_cast<double>(c.of(contender).moves); });
    return moves * 3600 / cell.trace.end_s;
  }
  // The worst seed's throughput, relative to another policy's.
  double Worst(Contender ours, Contender other) const {
    double worst = 1e9;
    for (const Comparison& c : seeds) {
      worst = std::min(worst, c.of(ours).throughput / c.of(other).throughput);
    }
    return worst;
  }
};

constexpr char kPolicies[] =
    " no moves | SWARM 300 s | SWARM 60 s | Starling 300 s | Starling 60 s | Starling at "
    "departures "
    "|\n";

void PrintName(const Row& row) {
  std::printf("| %zu, %.0f h, %.0f s | %zu |", row.cell.trace.population,
              row.cell.trace.mean_life_s / 3600, row.cell.download_s, row.cell.stages);
}

void PrintShares(const Row& row, double of) {
  for (Contender contender : kContenders) {
    if (contender == Contender::kClairvoyant) continue;
    std::printf(" %.2f |", 100 * row.Throughput(contender) / of);
  }
  std::printf("\n");
}

void PrintRule(int columns) {
  for (int i = 0; i < columns; ++i) std::printf("|---");
  std::printf("|\n");
}

void PrintShareOfClairvoyant(const std::vector<Row>& rows) {
  std::printf("Percent of the clairvoyant policy's throughput.\n\n");
  std::printf("| peers, mean life, download | stages | limit without foresight |%s", kPolicies);
  PrintRule(9);
  for (const Row& row : rows) {
    const double clairvoyant = row.Throughput(Contender::kClairvoyant);
    PrintName(row);
    std::printf(" %.2f |", 100 * row.Mean([](const Comparison& c) { return c.without_foresight; }) /
                               clairvoyant);
    PrintShares(row, clairvoyant);
  }
}

void PrintShareOfInstant(const std::vector<Row>& rows) {
  std::printf("\nPercent of the free and instant optimum's throughput.\n\n");
  std::printf(
      "| peers, mean life, download | stages | optimum, microbatches/s | bound | "
      "clairvoyant |%s",
      kPolicies);
  PrintRule(11);
  for (const Row& row : rows) {
    const double instant = row.Mean([](const Comparison& c) { return c.instant; });
    PrintName(row);
    std::printf(" %.2f | %.2f | %.2f |", instant,
                100 * row.Mean([](const Comparison& c) { return c.bound; }) / instant,
                100 * row.Throughput(Contender::kClairvoyant) / instant);
    PrintShares(row, instant);
  }
}

void PrintMoves(const std::vector<Row>& rows) {
  std::printf("\nMoves per hour.\n\n");
  std::printf(
      "| peers, mean life, download | stages | SWARM 300 s | SWARM 60 s | Starling 300 s | "
      "Starling 60 s | Starling at departures |\n");
  PrintRule(7);
  for (const Row& row : rows) {
    PrintName(row);
    for (Contender contender : {Contender::kSwarm300, Contender::kSwarm60, Contender::kStarling300,
                                Contender::kStarling60, Contender::kStarlingAtDepartures}) {
      std::printf(" %.0f |", row.MovesPerHour(contender));
    }
    std::printf("\n");
  }
}

void PrintWorst(const std::vector<Row>& rows) {
  std::printf("\nRatio of throughputs in the worst of the seeds.\n\n");
  std::printf(
      "| peers, mean life, download | stages | Starling 300 s / no moves | "
      "Starling 60 s / no moves | Starling 300 s / SWARM 300 s | "
      "Starling 60 s / SWARM 60 s | Starling at departures / Starling 60 s |\n");
  PrintRule(7);
  for (const Row& row : rows) {
    PrintName(row);
    std::printf(" %.4f | %.4f |", row.Worst(Contender::kStarling300, Contender::kNoMoves),
                row.Worst(Contender::kStarling60, Contender::kNoMoves));
    std::printf(" %.4f | %.4f |", row.Worst(Contender::kStarling300, Contender::kSwarm300),
                row.Worst(Contender::kStarling60, Contender::kSwarm60));
    std::printf(" %.4f |\n", row.Worst(Contender::kStarlingAtDepartures, Contender::kStarling60));
  }
}

void PrintLikeSwarm(uint64_t seeds) {
  std::printf("\nLike SWARM's own experiment, percent of the free and instant optimum.\n\n");
  std::printf(
      "| mean life | no moves | SWARM 300 s | SWARM 60 s | Starling 300 s | Starling 60 s "
      "|\n");
  PrintRule(6);
  for (double hours : {8.0, 6.0, 4.0, 2.0}) {
    SwarmLike sum;
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      const SwarmLike one = CompareLikeSwarm(hours * 3600, seed);
      sum.no_moves += one.no_moves;
      sum.swarm_300 += one.swarm_300;
      sum.swarm_60 += one.swarm_60;
      sum.starling_300 += one.starling_300;
      sum.starling_60 += one.starling_60;
    }
    const double percent = 100 / static_cast<double>(seeds);
    std::printf("| %.0f h | %.1f | %.1f | %.1f | %.1f | %.1f |\n", hours, percent * sum.no_moves,
                percent * sum.swarm_300, percent * sum.swarm_60, percent * sum.starling_300,
                percent * sum.starling_60);
  }
}

std::vector<Row> Rows(uint64_t seeds, double speed_range) {
  std::vector<Row> rows;
  for (const auto& make : {&ManyPeers, &FewPeers}) {
    for (size_t stages : {4, 8, 16, 32}) {
      Row row;
      row.cell = make(stages);
      row.cell.trace.speed_range = speed_range;
      for (uint64_t seed = 1; seed <= seeds; ++seed) row.seeds.push_back(Compare(row.cell, seed));
      rows.push_back(row);
    }
  }
  return rows;
}

void PrintTables(uint64_t seeds) {
  const std::vector<Row> equal = Rows(seeds, 1);
  PrintShareOfClairvoyant(equal);
  PrintShareOfInstant(equal);
  PrintWorst(equal);
  PrintMoves(equal);
  std::printf("\nSpeeds log-uniform from 1 to 4.\n");
  PrintShareOfInstant(Rows(seeds, 4));
  PrintLikeSwarm(seeds);
}

}  // namespace
}  // namespace starling

int main(int argc, char** argv) {
  const int seeds = argc > 1 ? std::atoi(argv[1]) : 10;
  if (seeds < 1) {
    std::fprintf(stderr, "rebalancing_table [SEEDS]: SEEDS is a number from 1\n");
    return 2;
  }
  starling::PrintTables(static_cast<uint64_t>(seeds));
  return 0;
}
