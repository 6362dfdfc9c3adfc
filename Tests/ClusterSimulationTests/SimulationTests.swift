import ClusterSimulation
import Testing

/// A few seeds, and the simulation itself; `make sim-test` runs thousands.
@Suite struct SimulationTests {
    @Test(arguments: UInt64(1)...4)
    func promisesHoldWhateverGoesWrong(seed: UInt64) {
        let verdict = Simulation.run(Scenario(seed: seed))
        #expect(verdict.violations == [], "see it with `make sim SEED=\(seed)`")
    }

    @Test func aScenarioIsAsLargeAsItHasToBe() {
        for seed in UInt64(1)...50 {
            let scenario = Scenario(seed: seed)
            #expect(scenario.jobs.count >= 50)
            #expect(scenario.faults.count >= 20)
            #expect(scenario.workers.count >= 3)
            #expect(scenario.maestros >= 2)
        }
    }

    @Test func theSameSeedGivesTheSameHistory() {
        let first = Simulation.run(Scenario(seed: 7), isTelling: true, tellsAll: true)
        let second = Simulation.run(Scenario(seed: 7), isTelling: true, tellsAll: true)
        #expect(first.history == second.history)
        #expect(first.steps == second.steps)
        #expect(first.history.count > 100)
    }

    @Test func aFailingScenarioIsMadeSmallAndFailsStill() throws {
        let mutant = Mutant.acksBeforeStored
        let failing = try #require(
            (UInt64(1)...20).lazy.map { Scenario(seed: $0) }.first {
                !Simulation.run($0, mutant: mutant).violations.isEmpty
            }
        )
        let small = Simulation.shrink(failing, mutant: mutant, budget: 60)
        #expect(small.faults.count + small.jobs.count < (failing.faults.count + failing.jobs.count) / 2)
        let verdict = Simulation.run(small, mutant: mutant, isTelling: true)
        #expect(!verdict.violations.isEmpty)
        #expect(verdict.history.contains { $0.contains("VIOLATION") })
    }
}
