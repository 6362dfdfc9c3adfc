import JobModel
import Testing

@testable import SchedulerCore

/// Jobs that are given to nobody before their worker must have ended them.
@Suite struct FenceTests {
    private static let patience = Fence(.seconds(15)).patience

    private func bench(running id: JobID = "a") throws -> Bench {
        var bench = Bench()
        bench.start(1)
        bench.submit(task(id, partition: .fence))
        bench.answer()
        try bench.commit(id, .claim)
        return bench
    }

    @Test func theRecordFixesTheTimesAtAdmission() throws {
        var policy = SchedulerPolicy()
        policy.heartbeatTTL = .seconds(40)
        var bench = Bench(policy: policy)
        bench.submit(task("a", partition: .fence))
        bench.submit(task("b", partition: .continue))
        bench.submit(task("c"))
        bench.answer()
        #expect(bench.record("a")?.limits.fence == Fence(.seconds(40)))
        #expect(bench.record("b")?.limits.fence == nil)
        #expect(bench.record("c")?.limits.fence == nil)
    }

    @Test func aSilentWorkersJobIsGivenAwayWhenThePatienceHasPassedAndNotBefore() throws {
        var bench = try bench()
        bench.pass(Self.patience - .milliseconds(1))
        #expect(bench.announcements.contains("gpu_gone"))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
        #expect(bench.record("a")?.lost == 1)
    }

    @Test func aCancelOfItDoesNotFreeTheSlotEarlier() throws {
        var bench = try bench()
        bench.pass(.seconds(1))
        bench.cancel("a")
        bench.answer()
        #expect(bench.record("a")?.cancelRequested == true)
        bench.pass(Self.patience - .seconds(1) - .milliseconds(1))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .cancelled)
    }

    @Test func aWorkerThatIsHeardOfAgainKeepsIt() throws {
        var bench = try bench()
        bench.pass(.seconds(15) + .milliseconds(500))
        #expect(bench.announcements.contains("gpu_gone"))
        bench.beat(1)
        bench.pass(.seconds(100), beating: [1])
        #expect(bench.state("a") == .running)
        bench.pass(Self.patience)
        #expect(bench.state("a") == .enqueued)
    }

    @Test func aNewLifeOfTheCardIsNoProofThatTheOldOneHasEnded() throws {
        var bench = try bench()
        bench.pass(.seconds(5), beating: [1])
        // Another host's worker, for all the leader knows.
        bench.register(1)
        bench.beat(1)
        bench.answer()
        #expect(bench.state("a") == .running)
        bench.pass(Self.patience - .milliseconds(1), beating: [1])
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") != .running)
    }

    @Test func aWorkerThatSaysThatItHasItNoMoreIsBelieved() throws {
        var bench = try bench()
        bench.beat(1, running: [])
        bench.answer()
        #expect(bench.state("a") == .running)
        bench.beat(1, running: [])
        bench.pass(Self.patience)
        #expect(bench.state("a") == .enqueued)
    }

    @Test func aWorkerThatGoesOnWithoutItDoesNotKeepItForEver() throws {
        var bench = try bench()
        // As after a power cut that took the end of the attempt back: its worker lives, and knows nothing of it any more.
        bench.beat(1, running: [])
        bench.beat(1, running: [])
        bench.answer()
        for _ in 0..<3 {
            bench.pass(.seconds(5))
            bench.beat(1, running: [])
        }
        #expect(bench.state("a") == .running)
        bench.pass(Self.patience - .seconds(15))
        #expect(bench.state("a") != .running)
        #expect(bench.record("a")?.lost == 1)
    }

    @Test func aNewLeaderCountsFromItsOwnBeginning() throws {
        let old = try bench()
        var bench = Bench(store: old.store, controls: old.controls, isLeading: false)
        bench.takeWorkers(of: old, after: .seconds(60))
        bench.send(.began(resultsPlace: 0, serverClockOffset: .zero))
        bench.registration(1, isReleased: false)
        for revision in bench.store.revisions { bench.send(.replayed(revision)) }
        bench.send(.replayFinished(lastSequence: bench.store.lastSequence))
        bench.send(.controlReplayed)
        bench.pass(Self.patience - .milliseconds(1))
        #expect(bench.state("a") == .running)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
    }

    @Test func otherJobsAreGivenAwayAtTheTTLAsEver() throws {
        var bench = Bench()
        bench.start(1, slots: 2)
        try bench.run("plain")
        bench.submit(task("fenced", partition: .fence))
        bench.answer()
        try bench.commit("fenced", .claim)
        bench.pass(.seconds(15))
        #expect(bench.state("plain") == .enqueued)
        #expect(bench.state("fenced") == .running)
    }

    @Test func onlyHeartbeatsThatCountAreAnswered() throws {
        var bench = try bench()
        bench.beat(1, asking: 7)
        #expect(bench.replies[7]?.first?["ok"]?.boolValue == true)
        let life = try #require(bench.life(of: 1))
        for (token, incarnation, counter) in [(8, life, 1), (9, "another", 99)] as [(UInt64, Incarnation, UInt64)] {
            let heartbeat = Heartbeat(
                gpu: 1,
                incarnation: incarnation,
                counter: counter,
                slots: 1,
                running: [],
                isDraining: false,
                time: 0
            )
            bench.send(.heartbeatAsked(heartbeat, RequestToken(token)))
            #expect(bench.replies[token]?.first?["ok"]?.boolValue == false)
            #expect(bench.replies[token]?.first?["counter"] == nil)
        }
    }

    @Test func aWorkerThatCannotFenceGetsOnlyOtherJobs() throws {
        var bench = Bench()
        bench.workersFence = false
        bench.start(1, slots: 2)
        bench.submit(task("fenced", partition: .fence))
        bench.submit(task("plain"))
        bench.answer()
        #expect(bench.state("fenced") == .enqueued)
        #expect(bench.state("plain") == .scheduled)
        bench.pass(.seconds(3), beating: [1])
        #expect(bench.state("fenced") == .waitingGPU)
        #expect(bench.record("fenced")?.reason.contains("cannot fence") == true)
        bench.workersFence = true
        bench.beat(1)
        bench.answer()
        #expect(bench.state("fenced") == .scheduled)
    }
}
