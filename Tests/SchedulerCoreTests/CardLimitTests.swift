import JobModel
import Testing
import WireJSON

@testable import SchedulerCore

@Suite("How many cards work, and which are remembered") struct CardLimitTests {
    private func bench(_ count: Int, day: Int = 0, night: Int = 0) -> Bench {
        var policy = SchedulerPolicy()
        (policy.dayMaxCards, policy.nightMaxCards) = (day, night)
        policy.logsDecisions = true
        var bench = Bench(policy: policy)
        for gpu in 1...count { bench.start(GPUID(integerLiteral: gpu), slots: 2) }
        return bench
    }

    private func dispatch(_ count: Int, _ bench: inout Bench) {
        for index in 0..<count { bench.dispatch(JobID(stringLiteral: "j\(index)")) }
    }

    private func load(_ bench: Bench) -> [Int] {
        bench.core.cardOrder.compactMap { bench.core.cards[$0]?.assigned.count }
    }

    @Test func atTheLimitOnlyCardsThatWorkGetJobs() throws {
        var bench = bench(4, day: 2)
        dispatch(6, &bench)
        #expect(load(bench) == [2, 2, 0, 0])
        #expect(bench.state("j4") == .enqueued)
        #expect(bench.cardState(3) == "day")
        #expect(bench.view(of: 3, for: "j4")?["reason"] == "day: as many cards work as DAY_MAX_CARDS allows (2)")
        #expect(bench.view(of: 1, for: "j4")?["reason"] == "all its slots are taken")
        try bench.commit("j0", .claim)
        try bench.commit("j0", .finish(outcome()))
        bench.answer()
        #expect(load(bench) == [2, 2, 0, 0])
        bench.dispatch("pinned", gpu: 4)
        #expect(bench.state("pinned") == .enqueued)
    }

    @Test func whenACardIsDoneAnotherMayBegin() throws {
        var bench = bench(2, day: 1)
        bench.dispatch("a", gpu: 1)
        bench.dispatch("b", gpu: 2)
        #expect(bench.state("b") == .enqueued)
        try bench.commit("a", .claim)
        try bench.commit("a", .finish(outcome()))
        bench.answer()
        #expect(bench.state("b") == .scheduled)
    }

    @Test func thePhaseOfTheDayChangesTheLimit() throws {
        var bench = bench(4, night: 1)
        dispatch(8, &bench)
        #expect(load(bench) == [2, 2, 2, 2])
        bench.send(.phase(.night))
        #expect(bench.told("phase")?["phase"] == "night")
        for index in 8..<20 { bench.dispatch(JobID(stringLiteral: "j\(index)")) }
        for run in bench.runs {
            try bench.commit(run.message.record.id, .claim)
            try bench.commit(run.message.record.id, .finish(outcome()))
            bench.answer()
        }
        #expect(load(bench) == [2, 0, 0, 0], "the first card goes on, the others run dry")
        bench.send(.phase(.night))
        bench.send(.phase(.day))
        bench.answer()
        #expect(load(bench) == [2, 2, 2, 2])
        #expect(bench.announcements.filter { $0 == "phase" }.count == 2)
    }

    // MARK: forgetting

    @Test func aCardThatIsGoneForADayLeavesTheTablesUntilItIsBack() {
        var bench = bench(2)
        bench.pass(.seconds(86_399))
        #expect(bench.cardState(1) == "gone")
        bench.pass(.seconds(1))
        #expect(bench.row(1) == nil && bench.row(2) == nil)
        #expect(bench.announcements.filter { $0 == "gpu_forgotten" }.count == 2)
        #expect(bench.ask(.cordon, 1)?["code"] == "unknown_card")
        bench.beat(1)
        #expect(bench.cardState(1) == "up", "its worker lived on, and was not heard")
        bench.start(2)
        #expect(bench.cardState(2) == "up")
        bench.dispatch("a", gpu: 1)
        #expect(bench.state("a") == .scheduled)
        #expect(bench.core.details.count == 2 && bench.core.forgotten.isEmpty)
    }

    @Test func aCardThatIsHeardOfIsNotForgotten() {
        var bench = bench(2)
        bench.pass(.seconds(200_000), beating: [1])
        #expect(bench.cardState(1) == "up")
        #expect(bench.row(2) == nil)
        bench.pass(.seconds(86_399))
        #expect(bench.cardState(1) == "gone")
        bench.pass(.seconds(1))
        #expect(bench.row(1) == nil)
    }

    @Test func aCardThatSomethingIsDecidedAboutStays() {
        var bench = bench(1)
        bench.ask(.cordon, 1)
        bench.pass(.seconds(300_000))
        #expect(bench.cardState(1) == "gone")
        bench.ask(.uncordon, 1)
        bench.pass(.seconds(86_400))
        #expect(bench.row(1) == nil)
    }

    @Test func aCardThatRegistersAndIsNeverHeardOfIsForgotten() {
        var bench = bench(1)
        bench.pass(.seconds(100_000), beating: [1])
        bench.register(1)
        bench.pass(.seconds(86_400))
        #expect(bench.row(1) == nil)
    }

    // MARK: decisions

    @Test func everyPlacementTellsWhatWasKnownOfEachCard() throws {
        var bench = bench(3)
        bench.read(1, busy: 50, temperature: 60)
        bench.read(2, busy: 40, temperature: 62)
        bench.ask(.cordon, 3, reason: "new fan")
        bench.dispatch("a")
        let decision = try #require(bench.decisions.first)
        #expect((decision.job, decision.gpu) == ("a", 2))
        #expect(decision.attempt == bench.record("a")?.attempt)
        #expect(
            decision.json["candidates"] == [
                [
                    "gpu_id": 1, "busy_percent": 50, "temp_c": 60, "stale": false, "load": 0, "slots": 2, "score": 80,
                    "objection": "",
                ],
                [
                    "gpu_id": 2, "busy_percent": 40, "temp_c": 62, "stale": false, "load": 0, "slots": 2, "score": 71,
                    "objection": "",
                ],
                ["gpu_id": 3, "stale": true, "load": 0, "slots": 2, "score": 110, "objection": "cordoned: new fan"],
            ]
        )
        #expect(decision.json["ts"]?.doubleValue == bench.now.seconds)
    }

    @Test func theLogAgreesWithTheScoreForEveryJob() throws {
        var bench = bench(12)
        var chance = IdentifierSource(seed: 5)
        for index in 0..<200 {
            for gpu in bench.core.cardOrder where chance.unit() < 0.5 {
                bench.read(gpu, busy: (chance.unit() * 100).rounded(), temperature: 40 + (chance.unit() * 45).rounded())
            }
            bench.dispatch(JobID(stringLiteral: "j\(index)"))
            guard chance.unit() < 0.8,
                let run = bench.runs.first(where: { bench.state($0.message.record.id) == .scheduled })
            else { continue }
            try bench.commit(run.message.record.id, .claim)
            try bench.commit(run.message.record.id, .finish(outcome()))
            bench.answer()
        }
        #expect(bench.decisions.count > 150)
        for decision in bench.decisions {
            let fit = decision.candidates.filter { $0.objection.isEmpty }
            let best = fit.min { ($0.load, $0.score, $0.gpu) < ($1.load, $1.score, $1.gpu) }
            #expect(best?.gpu == decision.gpu)
            #expect(fit.allSatisfy { ($0.temperature ?? 0) <= 78 })
        }
        #expect(bench.decisions.contains { $0.candidates.contains { $0.objection.hasPrefix("hot: ") } })
    }

    @Test func nothingIsToldUnlessAskedFor() {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a")
        #expect(bench.decisions.isEmpty && bench.state("a") == .scheduled)
    }
}
