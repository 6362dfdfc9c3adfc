import JobModel
import Testing

@testable import SchedulerCore

@Suite struct PlacementTests {
    private func score(_ gpu: GPUID, _ bench: Bench) -> Double {
        bench.core.cards[gpu]?.score(policy: bench.core.policy, at: bench.now) ?? .nan
    }

    @Test func theScoreIsBusyPlusHalfTheTemperaturePlusThirtyWhenStale() {
        var bench = Bench()
        bench.start(1)
        #expect(score(1, bench) == 50 + 30 + 30, "unknown busy counts 50, unknown temperature 60, no reading is stale")
        bench.read(1, busy: 20, temperature: 50)
        #expect(score(1, bench) == 20 + 25)
        bench.read(1, busy: 20)
        #expect(score(1, bench) == 20 + 30)
        bench.read(1, temperature: 50)
        #expect(score(1, bench) == 50 + 25)
        bench.pass(.seconds(15), beating: [1])
        #expect(score(1, bench) == 50 + 25, "as old as its TTL is not yet stale")
        bench.pass(.milliseconds(1), beating: [1])
        #expect(score(1, bench) == 50 + 25 + 30)
    }

    @Test func theCardWithTheLowerScoreGetsTheJob() {
        var bench = Bench()
        bench.start(1)
        bench.start(2)
        bench.read(1, busy: 50, temperature: 60)
        bench.read(2, busy: 40, temperature: 70)
        bench.dispatch("a")
        #expect(bench.record("a")?.gpu == 2)
    }

    @Test func equalScoresAreDecidedByTheId() {
        var bench = Bench()
        for gpu in ["10", "2", "rig1-0"] as [GPUID] { bench.start(gpu) }
        for id in ["a", "b", "c"] as [JobID] { bench.dispatch(id) }
        #expect(bench.runs.map(\.gpu) == [2, 10, "rig1-0"])
    }

    @Test func theEmptierCardComesBeforeTheBetterScore() {
        var bench = Bench()
        bench.start(1, slots: 2)
        bench.start(2, slots: 2)
        bench.read(1, busy: 0, temperature: 20)
        bench.read(2, busy: 90, temperature: 70)
        for id in ["a", "b", "c", "d"] as [JobID] { bench.dispatch(id) }
        #expect(bench.runs.map(\.gpu) == [1, 2, 1, 2])
    }

    @Test func aHotCardGetsNothingUntilItHasCooledDown() {
        var bench = Bench()
        bench.start(1)
        bench.read(1, temperature: 78.5)
        bench.dispatch("a")
        for temperature in [78.0, 70, 68.5] {
            bench.read(1, temperature: temperature)
            bench.answer()
            #expect(bench.state("a") == .enqueued)
        }
        bench.read(1, temperature: 68)
        bench.answer()
        #expect(bench.state("a") == .scheduled)
    }

    @Test func aCardAtTheLimitOfHeatTakesJobs() {
        var bench = Bench()
        bench.start(1)
        bench.read(1, temperature: 78)
        bench.dispatch("a")
        #expect(bench.state("a") == .scheduled)
    }

    @Test func aHotCardThatIsReadNoMoreStaysHot() {
        var bench = Bench()
        bench.start(1)
        bench.read(1, temperature: 90)
        bench.dispatch("a")
        bench.pass(.seconds(60), beating: [1])
        bench.read(1, busy: 0)
        bench.answer()
        #expect(bench.record("a")?.attempt == nil, "that its temperature is not known does not make it cool")
        bench.read(1, temperature: 60)
        bench.answer()
        #expect(bench.state("a") == .scheduled)
    }

    @Test func theLimitOfTheWorkerCountsIfItIsLower() throws {
        var bench = Bench()
        bench.start(1)
        var reading = CardReading(gpu: 1, incarnation: try #require(bench.life(of: 1)), busyPercent: 0, temperature: 69)
        reading.temperatureLimit = 68
        bench.send(.reading(reading))
        bench.dispatch("a")
        #expect(bench.state("a") == .enqueued)
        #expect(
            bench.view(of: 1, for: "a")?["reason"]
                == "hot: 69.0 C; the limit is 68.0 C, and it must cool down to 58.0 C"
        )
        reading.temperature = 58
        bench.send(.reading(reading))
        bench.answer()
        #expect(bench.state("a") == .scheduled)
    }

    @Test func aBusyCardThatIsReadNoMoreTakesJobsAgain() {
        var bench = Bench()
        bench.start(1)
        bench.read(1, busy: 100)
        bench.dispatch("a")
        bench.pass(.seconds(15), beating: [1])
        #expect(bench.record("a")?.attempt == nil)
        bench.pass(.seconds(1), beating: [1])
        #expect(bench.state("a") == .scheduled)
    }

    @Test func nothingIsPlacedBeforeTheControlRecordsAreKnown() {
        var bench = Bench(isLeading: false)
        bench.send(.began(resultsPlace: 0, serverClockOffset: .zero))
        bench.send(.replayFinished(lastSequence: 0))
        bench.start(1)
        bench.dispatch("a")
        #expect(bench.state("a") == .enqueued)
        bench.send(.controlReplayed)
        bench.answer()
        #expect(bench.state("a") == .scheduled)
    }

    @Test func aCardThatSomebodyElseKeepsBusyGetsNothing() {
        var bench = Bench()
        bench.start(1)
        bench.read(1, busy: 95.5)
        bench.dispatch("a")
        #expect(bench.state("a") == .enqueued)
        bench.read(1, busy: 95)
        bench.answer()
        #expect(bench.state("a") == .scheduled)
    }

    @Test func whatOurOwnJobKeptBusyDoesNotCountWhenItHasEnded() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.read(1, busy: 100)
        bench.dispatch("b")
        try bench.commit("a", .finish(outcome()))
        bench.answer()
        #expect(bench.state("b") == .scheduled)
    }

    @Test func aDrainingCardGetsNothingAndGivesBackWhatItHasNotClaimed() throws {
        var bench = Bench()
        bench.start(1, slots: 2)
        try bench.run("a")
        bench.dispatch("b")
        bench.beat(1, isDraining: true)
        bench.answer()
        #expect(bench.state("a") == .running)
        #expect(bench.state("b") == .enqueued)
        #expect(bench.deletions.map(\.attempt) == [bench.record("b")?.attempt])
        bench.dispatch("c")
        #expect(bench.state("c") == .enqueued)
    }

    @Test func aPinnedJobWaitsForItsCardAlone() {
        var bench = Bench()
        bench.start(1)
        bench.start(2)
        bench.dispatch("a", gpu: 2)
        bench.dispatch("b", gpu: 2)
        bench.dispatch("c")
        #expect(bench.record("a")?.gpu == 2)
        #expect(bench.state("b") == .enqueued)
        #expect(bench.record("c")?.gpu == 1)
    }

    @Test func aJobPinnedToAnAbsentCardSaysSoAndStartsWhenTheCardComes() throws {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a", gpu: 7)
        bench.pass(.milliseconds(1999), beating: [1])
        #expect(bench.state("a") == .enqueued)
        bench.pass(.milliseconds(1), beating: [1])
        let record = try #require(bench.record("a"))
        #expect(record.state == .waitingGPU)
        #expect(record.reason.contains("card 7"))
        bench.start(7)
        #expect(bench.record("a")?.gpu == 7)
        #expect(bench.state("a") == .scheduled)
        #expect(bench.record("a")?.reason == "")
    }

    @Test func jobsNoLongerSayThatThereIsNoCardWhenThereIsABusyOne() {
        var bench = Bench()
        bench.dispatch("a")
        bench.dispatch("b")
        bench.pass(.seconds(2))
        #expect(bench.state("a") == .waitingGPU)
        #expect(bench.state("b") == .waitingGPU)
        bench.start(1)
        #expect(bench.state("a") == .scheduled)
        #expect(bench.state("b") == .enqueued)
    }

    @Test func jobsSayAgainThatTheyWaitEachTimeTheCardsGo() {
        var bench = Bench()
        bench.dispatch("a", gpu: 1)
        bench.dispatch("b", gpu: 1)
        for _ in 0..<3 {
            bench.pass(.seconds(40))
            #expect(bench.state("a") == .waitingGPU)
            #expect(bench.state("b") == .waitingGPU)
            bench.start(1)
            #expect(bench.state("a") == .scheduled)
            #expect(bench.state("b") == .enqueued)
        }
        #expect(bench.core.deadlines.count < 12, "what was planned for an earlier absence is not planned for ever")
    }

    @Test func aHigherPriorityGoesFirstThenTheOrderOfSubmission() {
        var bench = Bench()
        bench.submit(task("late-a"))
        bench.submit(task("low", priority: -1))
        bench.submit(task("early", priority: 5))
        bench.submit(task("pinned", gpu: 1, priority: 7))
        bench.submit(task("late-b"))
        bench.answer()
        bench.start(1, slots: 5)
        #expect(bench.runs.map(\.message.record.id.text) == ["pinned", "early", "late-a", "late-b", "low"])
    }

    @Test func jobsAreDispatchedAheadOnlyWhereTheyAreShort() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("first")
        try bench.commit("first", .finish(outcome(seconds: 0.5)))
        for id in ["a", "b", "c"] as [JobID] { bench.dispatch(id) }
        #expect(bench.runs.map(\.message.record.id) == ["first", "a", "b"], "one runs, one waits in the card's stream")
        try bench.commit("a", .claim)
        try bench.commit("a", .finish(outcome(seconds: 60)))
        bench.answer()
        #expect(bench.state("c") == .enqueued, "on average its jobs are long now")
    }

    @Test func aFreeSlotIsBetterThanAPlaceInTheStreamOfACard() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("first", gpu: 1)
        try bench.commit("first", .finish(outcome(seconds: 0.1)))
        bench.start(2)
        bench.read(1, busy: 0, temperature: 20)
        bench.read(2, busy: 90, temperature: 70)
        for id in ["a", "b", "c"] as [JobID] { bench.dispatch(id) }
        #expect(bench.runs.dropFirst().map(\.gpu) == [1, 2, 1])
    }

    @Test func aCardIsNeverOverBooked() throws {
        var bench = Bench()
        for index in 0..<10 { bench.dispatch(JobID(stringLiteral: "j\(index)")) }
        bench.start(1, slots: 3)
        #expect(bench.runs.count == 3)
        for run in bench.runs { try bench.commit(run.message.record.id, .claim) }
        #expect(bench.runs.count == 3)
        try bench.commit("j1", .retry(outcome(exit: 1), delay: .seconds(100)))
        bench.answer()
        #expect(bench.runs.count == 4)
        bench.beat(1)
        #expect(bench.core.inflight == 3)
        #expect(bench.core.queueSize == 7)
    }

    @Test func moreSlotsTakeMoreJobs() {
        var bench = Bench()
        for id in ["a", "b", "c"] as [JobID] { bench.dispatch(id) }
        bench.start(1)
        #expect(bench.runs.count == 1)
        bench.setSlots(1, 3)
        bench.beat(1)
        bench.answer()
        #expect(bench.runs.count == 3)
    }
}
