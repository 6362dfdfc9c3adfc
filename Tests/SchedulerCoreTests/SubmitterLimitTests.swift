import JobModel
import Testing

@testable import SchedulerCore

/// One submitter has no more jobs in the pool than MAX_JOBS_PER_SUBMITTER.
@Suite struct SubmitterLimitTests {
    private func bench(limit: Int) -> Bench {
        var policy = SchedulerPolicy()
        policy.maxJobsPerSubmitter = limit
        return Bench(policy: policy)
    }

    @Test func aSubmissionAboveTheLimitIsRejectedWithTheReason() throws {
        var bench = bench(limit: 2)
        for id in ["a", "b", "c"] as [JobID] { bench.submit(task(id, submitter: "ann@here")) }
        bench.submit(task("d", submitter: "bob@here"))
        bench.answer()
        let states = (["a", "b", "c", "d"] as [JobID]).map { bench.state($0) }
        #expect(states == [.enqueued, .enqueued, .rejected, .enqueued])
        #expect(bench.record("c")?.outcome?.code == .tooManyJobs)
        #expect(bench.record("c")?.reason.contains("ann@here has 2 jobs") == true)
        #expect(bench.errors.map(\.event.code) == [.tooManyJobs])
        #expect(bench.settled.sorted() == [1, 2, 3, 4])
    }

    @Test func anEndedJobMakesRoom() throws {
        var bench = bench(limit: 1)
        bench.start(1)
        bench.submit(task("a", submitter: "ann@here"))
        bench.answer()
        bench.submit(task("b", submitter: "ann@here"))
        bench.answer()
        #expect(bench.state("b") == .rejected)
        try bench.commit("a", .claim)
        bench.submit(task("c", submitter: "ann@here"))
        bench.answer()
        #expect(bench.state("c") == .rejected, "one that runs counts too")
        try bench.commit("a", .finish(outcome()))
        bench.submit(task("d", submitter: "ann@here"))
        bench.answer()
        #expect(bench.record("d")?.state.isTerminal == false)
        bench.cancel("d")
        bench.answer()
        bench.submit(task("e", submitter: "ann@here"))
        bench.answer()
        #expect(bench.record("e")?.state.isTerminal == false)
    }

    @Test func aRepetitionIsNoFurtherJob() {
        var bench = bench(limit: 1)
        let bytes = task("a", submitter: "ann@here")
        bench.submit(bytes)
        // While its record is being made, and after that.
        bench.submit(bytes)
        bench.answer()
        bench.submit(bytes)
        bench.answer()
        #expect(bench.state("a") == .enqueued)
        #expect(bench.errors.isEmpty)
        #expect(bench.settled.sorted() == [1, 2, 3])
        bench.submit(task("b", submitter: "ann@here"))
        bench.answer()
        #expect(bench.state("b") == .rejected)
    }

    @Test func aRecordThatStoodThereAlreadyTakesNoPlaceTwice() throws {
        var bench = bench(limit: 2)
        // Another leader has made the record; this one learns of it by the conflict, and then from the stream.
        var other = Bench(store: bench.store)
        let bytes = task("a", submitter: "ann@here")
        other.submit(bytes)
        other.answer()
        bench.submit(bytes)
        bench.answer()
        bench.submit(task("b", submitter: "ann@here"))
        bench.answer()
        #expect(bench.state("b") == .enqueued)
        bench.submit(task("c", submitter: "ann@here"))
        bench.answer()
        #expect(bench.state("c") == .rejected)
    }

    @Test func thoseWhoNameNobodyShareOneCount() {
        var bench = bench(limit: 1)
        bench.submit(task("a"))
        bench.submit(task("b"))
        bench.answer()
        #expect(bench.state("b") == .rejected)
        #expect(bench.record("b")?.reason.contains("those who name no submitter") == true)
    }

    @Test func aNewLeaderCountsWhatIsThere() {
        var old = bench(limit: 2)
        old.submit(task("a", submitter: "ann@here"))
        old.submit(task("b", submitter: "ann@here"))
        old.answer()
        var policy = SchedulerPolicy()
        policy.maxJobsPerSubmitter = 2
        var bench = Bench(policy: policy, store: old.store, controls: old.controls, isLeading: false)
        bench.takeWorkers(of: old, after: .seconds(1))
        bench.send(.began(resultsPlace: 0, serverClockOffset: .zero))
        for revision in bench.store.revisions { bench.send(.replayed(revision)) }
        bench.send(.replayFinished(lastSequence: bench.store.lastSequence))
        bench.send(.controlReplayed)
        bench.submit(task("c", submitter: "ann@here"))
        bench.answer()
        #expect(bench.state("c") == .rejected)
    }

    @Test func withoutALimitNobodyIsCounted() {
        var bench = bench(limit: 0)
        for number in 0..<100 { bench.submit(task(JobID("a\(number)"), submitter: "ann@here")) }
        bench.answer()
        #expect(bench.core.queueSize == 100)
        #expect(bench.core.submitters.count(of: "ann@here") == 0)
    }
}
