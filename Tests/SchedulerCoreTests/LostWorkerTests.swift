import JobModel
import Testing

@testable import SchedulerCore

@Suite struct LostWorkerTests {
    @Test func aSilentWorkerLosesItsAttemptsWhenItsTTLHasPassed() throws {
        var bench = Bench()
        bench.start(1, slots: 2)
        try bench.run("a")
        bench.dispatch("b")
        bench.storeRuns()
        let attempt = try #require(bench.record("a")?.attempt)
        bench.pass(.milliseconds(14_999))
        #expect(bench.state("a") == .running)
        #expect(bench.state("b") == .scheduled)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
        #expect(bench.record("a")?.lost == 1)
        #expect(bench.record("a")?.tries == 1)
        #expect(bench.state("b") == .enqueued)
        #expect(bench.record("b")?.lost == 0)
        #expect(bench.errors.map(\.event.code) == [.lost])
        #expect(bench.errors.map(\.event.attempt) == [attempt])
        #expect(bench.errors.map(\.messageID) == ["err:\(attempt)"])
        #expect(bench.errors.map(\.event.state) == [.enqueued])
        #expect(bench.deletions.map(\.sequence) == [1, 2])
        #expect(bench.announcements.contains("gpu_gone"))
        #expect(bench.core.aliveCards == 0)
    }

    @Test func aWorkerThatBeatsKeepsItsAttempts() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.pass(.seconds(600), beating: [1])
        #expect(bench.state("a") == .running)
    }

    @Test func heartbeatsOfAnotherLifeOrFromThePastAreNoSignOfLife() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        let life = try #require(bench.life(of: 1))
        bench.pass(.seconds(14))
        for (incarnation, counter) in [("another", 9), (life, 1)] as [(Incarnation, UInt64)] {
            bench.send(
                .heartbeat(
                    Heartbeat(
                        gpu: 1,
                        incarnation: incarnation,
                        counter: counter,
                        slots: 1,
                        running: [],
                        isDraining: false,
                        time: 0
                    )
                )
            )
        }
        bench.pass(.seconds(1))
        #expect(bench.state("a") == .enqueued)
    }

    @Test func aNewLifeClosesWhatTheOldOneLeftAtItsFirstHeartbeat() throws {
        var bench = Bench()
        bench.start(1, slots: 2)
        try bench.run("a")
        bench.dispatch("b")
        bench.register(1, slots: 2)
        #expect(bench.writes.isEmpty, "it is still closing its earlier attempts itself")
        bench.beat(1)
        #expect(bench.writes.map(\.record.id) == ["a", "b"])
        bench.answer()
        #expect(bench.record("a")?.lost == 1)
        #expect(bench.record("b")?.lost == 0)
        #expect(bench.record("a")?.owner == bench.life(of: 1), "it is dispatched to the new life")
    }

    @Test func aNewLifeThatIsNeverHeardOfIsGoneWhenItsTTLHasPassed() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.pass(.seconds(10))
        bench.register(1)
        bench.pass(.milliseconds(14_999))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
    }

    @Test func aNewLifeIsNotHeldAgainstAnAttemptThatItsWorkerClosedItself() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.register(1)
        try bench.commit("a", .lose(reason: "the worker was restarted"))
        bench.beat(1)
        bench.answer()
        #expect(bench.record("a")?.lost == 1)
        #expect(bench.state("a") == .scheduled)
        #expect(bench.errors.isEmpty)
    }

    @Test func aHeartbeatThatOvertakesItsRegistrationCounts() {
        var bench = Bench()
        bench.dispatch("a")
        bench.introduce(1)
        bench.beat(1)
        #expect(bench.core.aliveCards == 0)
        bench.registration(1, isReleased: false)
        bench.answer()
        #expect(bench.core.aliveCards == 1)
        #expect(bench.state("a") == .scheduled)
    }

    @Test func anAttemptMissingFromTwoHeartbeatsInARowIsLost() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.beat(1, running: [])
        #expect(bench.writes.isEmpty, "one may have been sent before the claim")
        bench.beat(1)
        bench.beat(1, running: [])
        #expect(bench.writes.isEmpty, "it was named in between")
        bench.beat(1, running: [])
        bench.answer()
        #expect(bench.record("a")?.lost == 1)
        #expect(bench.errors.map(\.event.code) == [.lost])
    }

    @Test func anAttemptThatEndedWhileItWasMissedIsNotLost() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.beat(1, running: [])
        bench.beat(1, running: [])
        try bench.commitUnheard("a", .finish(outcome()))
        bench.answer()
        #expect(bench.state("a") == .done)
        #expect(bench.errors.isEmpty)
        #expect(bench.core.inflight == 0)
    }

    @Test(arguments: [true, false])
    func aWorkerThatEndsInOrderLosesItsAttemptsAtOnce(saysDown: Bool) throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        if saysDown {
            bench.send(.workerDown(WorkerNotice(gpu: 1, incarnation: try #require(bench.life(of: 1)))))
        } else {
            bench.registration(1, isReleased: true)
        }
        bench.answer()
        #expect(bench.state("a") == .enqueued)
        #expect(bench.core.aliveCards == 0)
        bench.start(1)
        #expect(bench.state("a") == .scheduled)
    }

    @Test func theEndOfAnEarlierLifeDoesNotEndTheNextOne() throws {
        var bench = Bench()
        bench.start(1)
        let earlier = try #require(bench.life(of: 1))
        bench.start(1)
        try bench.run("a")
        bench.send(.workerDown(WorkerNotice(gpu: 1, incarnation: earlier)))
        #expect(bench.writes.isEmpty)
        #expect(bench.core.aliveCards == 1)
    }

    @Test func aJobLostTooOftenFails() throws {
        var policy = SchedulerPolicy()
        policy.maxLost = 2
        var bench = Bench(policy: policy)
        bench.submit(task("a"))
        bench.answer()
        for _ in 0..<3 {
            #expect(bench.state("a") == .enqueued)
            bench.start(1)
            try bench.commit("a", .claim)
            bench.pass(.seconds(15))
        }
        let record = try #require(bench.record("a"))
        #expect(record.state == .failed)
        #expect(record.outcome?.code == .lost)
        #expect(record.reason.contains("3 times"))
        #expect(bench.errors.map(\.event.state) == [.enqueued, .enqueued, .failed])
        #expect(bench.results.map(\.event.state) == [.failed])
    }

    @Test func aJobThatItsWorkersGaveBackTooOftenFails() throws {
        var policy = SchedulerPolicy()
        policy.maxLost = 2
        var bench = Bench(policy: policy)
        bench.start(1)
        bench.submit(task("a"))
        bench.answer()
        for _ in 0..<3 {
            #expect(bench.state("a") == .scheduled)
            try bench.commit("a", .claim)
            try bench.commit("a", .lose(reason: "the worker was restarted"))
            bench.answer()
        }
        let record = try #require(bench.record("a"))
        #expect(record.state == .failed)
        #expect(record.outcome?.code == .lost)
        #expect(bench.errors.map(\.event.code) == [.lost])
        #expect(bench.errors.map(\.messageID) == ["err:a"])
    }

    @Test func aJobLostWhileItWasToBeCancelledIsCancelled() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.cancel("a")
        bench.answer()
        #expect(bench.record("a")?.cancelRequested == true)
        bench.pass(.seconds(15))
        #expect(bench.state("a") == .cancelled)
        #expect(bench.record("a")?.reason == "not needed")
        #expect(bench.results.map(\.event.state) == [.cancelled])
    }

    @Test func anAttemptClaimedOnACardGivenUpIsNotWaitedForWithoutEnd() throws {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.answerWrite()
        bench.passWithoutWrites(.seconds(16))
        #expect(bench.core.aliveCards == 0)
        bench.answer()
        try bench.commit("a", .claim)
        #expect(bench.state("a") == .running)
        bench.pass(.seconds(15))
        #expect(bench.state("a") == .enqueued)
        #expect(bench.record("a")?.lost == 1)
    }
}

@Suite struct FullTTLTests {
    @Test func aNewLeaderCallsNobodyLostBeforeAFullTTL() throws {
        var old = Bench()
        old.start(1)
        try old.run("a")
        var bench = Bench.successor(of: old, after: .seconds(100))
        bench.pass(.milliseconds(14_999))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
    }

    @Test func aReplayMayTakeLongerThanTheTTL() throws {
        var old = Bench()
        old.start(1)
        try old.run("a")
        var bench = Bench.successor(of: old, after: .seconds(100), isReplayed: false)
        bench.pass(.seconds(60))
        bench.finishReplay()
        bench.pass(.milliseconds(14_999))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
    }

    @Test func aLeaderThatWasStalledGrantsAFullTTL() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.stall(.seconds(40))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(14_999))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
    }

    @Test func aReconnectGrantsAFullTTL() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.pass(.seconds(14))
        bench.send(.reconnected)
        bench.pass(.milliseconds(14_999))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
    }

    @Test func nothingIsScheduledBeforeTheLossIsTold() throws {
        var bench = Bench()
        bench.start(1)
        bench.start(2)
        try bench.run("a")
        let gpu = try #require(bench.record("a")?.gpu)
        let other: GPUID = gpu == 1 ? 2 : 1
        bench.register(gpu)
        bench.beat(gpu)
        bench.answerWrite()
        #expect(bench.record("a")?.lost == 1)
        bench.beat(other)
        #expect(bench.writes.isEmpty, "its loss is not told yet")
        bench.answerLoss()
        bench.answer()
        #expect(bench.state("a") == .scheduled)
    }

    @Test func aNewLeaderTellsALossThatTheLastOneMayNotHaveTold() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        let attempt = try #require(bench.record("a")?.attempt)
        try bench.commitUnheard("a", .lose(reason: "its worker is gone"))
        for (pause, told) in [(Duration.seconds(2), ["err:\(attempt)"]), (.seconds(121), [])] {
            let next = Bench.successor(of: bench, after: pause)
            #expect(next.errors.map(\.messageID) == told)
        }
    }

    @Test func aNewLeaderDoesNotCallAnAttemptLostThatWasTakenBack() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .lose(reason: "its worker is gone"))
        bench.answer()
        bench.beat(1)
        bench.answer()
        #expect(bench.state("a") == .scheduled)
        try bench.commit("a", .takeBack(reason: "not claimed"))
        #expect(Bench.successor(of: bench, after: .seconds(1)).errors.isEmpty)
    }

    @Test func aLossThatCouldNotBeStoredIsTakenBackWhenItsWorkerIsHeardOfAgain() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.now = bench.now + .seconds(15)
        bench.fireTimer()
        try #require(bench.writes.map(\.record.state) == [.enqueued])
        bench.answerWrite(.refused("maximum bytes exceeded"))
        bench.beat(1)
        bench.pass(.seconds(30), beating: [1])
        #expect(bench.state("a") == .running)
        #expect(bench.record("a")?.lost == 0)
    }
}
