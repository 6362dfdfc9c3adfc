import JobModel
import SchedulerCore
import Testing
import WireJSON

@Suite struct CancelTests {
    private func states(_ bench: Bench, _ token: UInt64 = 1) -> [String] {
        bench.replies[token, default: []].map { $0["state"]?.stringValue ?? "none" }
    }

    @Test func aWaitingJobIsCancelledByOneWrite() throws {
        var bench = Bench()
        bench.dispatch("a")
        bench.cancel("a")
        #expect(bench.replies.isEmpty, "not before it is stored")
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        #expect(bench.record("a")?.reason == "not needed")
        #expect(states(bench) == ["cancelled"])
        #expect(bench.results.map(\.event.state) == [.cancelled])
        #expect(bench.core.queueSize == 0)
        bench.start(1)
        #expect(bench.runs.isEmpty)
    }

    @Test func aJobThatWaitsForItsCardIsCancelled() {
        var bench = Bench()
        bench.dispatch("a", gpu: 4)
        bench.pass(.seconds(2))
        bench.cancel("a")
        bench.answer()
        #expect(bench.state("a") == .cancelled)
    }

    @Test func aScheduledJobIsCancelledAndItsRunMessageDeleted() throws {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a")
        bench.storeRuns()
        bench.cancel("a")
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        #expect(bench.deletions.map(\.sequence) == [1])
        #expect(states(bench) == ["cancelled"])
        #expect(bench.errors.isEmpty, "no attempt was made")
        bench.dispatch("b")
        #expect(bench.state("b") == .scheduled)
    }

    @Test func aScheduledJobThatIsClaimedFirstIsKilled() throws {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a")
        bench.cancel("a")
        try bench.commitUnheard("a", .claim)
        bench.answer()
        #expect(bench.record("a")?.cancelRequested == true)
        #expect(bench.kills.map(\.attempt) == [bench.record("a")?.attempt])
        #expect(states(bench) == ["running"])
    }

    @Test func aRunningJobIsKilledByItsWorkerWhichIsAskedUntilItHasDoneSo() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.cancel("a")
        #expect(bench.kills.isEmpty)
        bench.answer()
        #expect(bench.state("a") == .running)
        #expect(bench.record("a")?.cancelRequested == true)
        #expect(bench.kills.count == 1)
        #expect(states(bench) == ["running"])
        bench.beat(1)
        bench.beat(1)
        #expect(bench.kills.count == 3)
        #expect(bench.core.inflight == 1, "its slot is not free before the worker says so")
        try bench.commit("a", .cancel(reason: "not needed", outcome(exit: -15)))
        bench.beat(1)
        #expect(bench.kills.count == 3)
        #expect(bench.core.inflight == 0)
        #expect(states(bench) == ["running"])
    }

    @Test func aJobThatEndsBeforeItIsKilledTellsHowItEnded() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.cancel("a")
        try bench.commitUnheard("a", .finish(outcome()))
        bench.answer()
        #expect(bench.state("a") == .done)
        #expect(states(bench) == ["done"])
    }

    @Test func aJobInBackoffIsCancelled() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .retry(outcome(exit: 1), delay: .seconds(8)))
        bench.cancel("a")
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        #expect(bench.record("a")?.outcome?.code == .cancelled)
        bench.pass(.seconds(20), beating: [1])
        #expect(bench.state("a") == .cancelled)
    }

    @Test func aCancelThatComesWhileAWriteIsUnderWayFollowsIt() throws {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.cancel("a")
        #expect(bench.writes.count == 1, "the record is just being created")
        bench.answerWrite()
        #expect(bench.writes.map(\.record.state) == [.cancelled])
        bench.answer()
        #expect(states(bench) == ["cancelled"])
        #expect(bench.settled == [1])
        #expect(bench.runs.isEmpty)
    }

    @Test func anUnknownIdGetsARecordThatIsCancelled() throws {
        var bench = Bench()
        bench.cancel("a")
        #expect(bench.reads == ["a"])
        #expect(bench.writes.isEmpty)
        bench.cancel("a", token: 2)
        #expect(bench.reads == ["a"])
        bench.answerReads()
        #expect(bench.writes.map(\.expected) == [0])
        bench.cancel("a", token: 3)
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        for token in 1...3 { #expect(states(bench, UInt64(token)) == ["cancelled"]) }
        #expect(bench.results.map(\.event.state) == [.cancelled])
    }

    @Test func anIdThatIsSubmittedWhileItsRecordIsReadIsCancelledAllTheSame() throws {
        var bench = Bench()
        bench.cancel("a")
        bench.submit(task("a"))
        bench.answer()
        #expect(bench.state("a") == .enqueued)
        bench.send(.recordRead("a", nil))
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        #expect(states(bench) == ["cancelled"])
    }

    @Test func aTerminalStateIsToldAndNotChanged() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .fail(outcome(exit: 4)))
        bench.cancel("a")
        #expect(bench.reads == ["a"])
        bench.answerReads()
        #expect(bench.writes.isEmpty)
        #expect(states(bench) == ["failed"])
        #expect(bench.state("a") == .failed)
    }

    @Test func aCancelAskedTwiceIsAnsweredTwice() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.cancel("a", token: 1, reason: "first")
        bench.cancel("a", token: 2, reason: "second")
        bench.answer()
        bench.cancel("a", token: 3)
        bench.answer()
        for token in 1...3 { #expect(states(bench, UInt64(token)) == ["running"]) }
        #expect(bench.record("a")?.reason == "first")
    }

    @Test func aJobThatFailsWhileItIsToBeKilledIsNotTriedAgainEvenByANewLeader() throws {
        var old = Bench()
        old.start(1)
        try old.run("a")
        old.cancel("a")
        old.answer()
        try old.commitUnheard("a", .retry(outcome(exit: 1), delay: .seconds(2)))
        var bench = Bench.successor(of: old, after: .seconds(1))
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        #expect(bench.results.map(\.event.state) == [.cancelled])
    }

    @Test func aNewLeaderGoesOnAskingTheWorkerToKill() throws {
        var old = Bench()
        old.start(1)
        try old.run("a")
        old.cancel("a")
        old.answer()
        var bench = Bench.successor(of: old, after: .seconds(1))
        bench.registration(1, isReleased: false)
        bench.beat(1)
        #expect(bench.kills.map(\.attempt) == [bench.record("a")?.attempt])
    }

    @Test func aRefusedCancelIsTriedAgain() throws {
        var bench = Bench()
        bench.dispatch("a")
        bench.cancel("a")
        bench.answerWrite(.refused("maximum bytes exceeded"))
        #expect(bench.replies.isEmpty)
        bench.pass(.seconds(1))
        #expect(bench.state("a") == .cancelled)
        #expect(states(bench) == ["cancelled"])
    }
}
