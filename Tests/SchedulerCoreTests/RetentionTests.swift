import JobModel
import Testing

@testable import SchedulerCore

@Suite struct RetentionTests {
    private func policy(keep: Duration = .seconds(30 * 86_400), count: Int = 1_000_000) -> SchedulerPolicy {
        var policy = SchedulerPolicy()
        policy.idHorizon = .seconds(7 * 86_400)
        policy.keepDoneFor = keep
        policy.keepDone = count
        return policy
    }

    /// Runs jobs to their end, one after the other, their results told.
    private func end(_ ids: [JobID], on bench: inout Bench) throws {
        for id in ids {
            try bench.run(id)
            try bench.commit(id, .finish(outcome()))
            bench.send(.resultSeen(id))
        }
        bench.pass(.seconds(2), beating: [1])
    }

    @Test func aRecordIsRemovedByItsSequenceWhenItIsOldEnough() throws {
        var bench = Bench(policy: policy())
        bench.start(1)
        try end(["a"], on: &bench)
        let sequence = try #require(bench.store["a"]?.sequence)
        bench.pass(.seconds(30 * 86_400 - 10))
        #expect(bench.removals.isEmpty)
        bench.pass(.seconds(20))
        #expect(bench.removals == [sequence])
        bench.send(.recordRemoved(sequence: sequence, failure: nil))
        bench.pass(.seconds(86_400))
        #expect(bench.removals == [sequence])
    }

    @Test func aJobThatHasNotEndedIsNeverRemoved() throws {
        var bench = Bench(policy: policy())
        bench.submit(task("waits"))
        bench.answer()
        bench.pass(.seconds(400 * 86_400))
        #expect(bench.removals.isEmpty)
        #expect(bench.state("waits") != nil)
    }

    @Test func moreThanTheNumberKeptGoOnceTheirIdsAreBeyondTheHorizon() throws {
        var bench = Bench(policy: policy(count: 2))
        bench.start(1)
        try end(["a", "b", "c", "d"], on: &bench)
        let oldest = ["a", "b"].compactMap { bench.store[$0]?.sequence }
        bench.pass(.seconds(7 * 86_400 - 10))
        #expect(bench.removals.isEmpty, "their ids still tell repetitions")
        bench.pass(.seconds(20))
        #expect(bench.removals == oldest)
        for sequence in oldest { bench.send(.recordRemoved(sequence: sequence, failure: nil)) }
        bench.pass(.seconds(86_400))
        #expect(bench.removals == oldest)
    }

    @Test func aRemovalThatFailsIsToldAndTriedAgainLater() throws {
        var bench = Bench(policy: policy())
        bench.start(1)
        try end(["a", "b"], on: &bench)
        let sequences = ["a", "b"].compactMap { bench.store[$0]?.sequence }
        bench.pass(.seconds(30 * 86_400))
        #expect(bench.removals == sequences)
        bench.send(.recordRemoved(sequence: sequences[0], failure: "no answer"))
        bench.send(.recordRemoved(sequence: sequences[1], failure: nil))
        #expect(bench.notices.contains { $0.contains("no answer") })
        bench.pass(.seconds(29))
        #expect(bench.removals == sequences)
        bench.pass(.seconds(2))
        #expect(bench.removals == sequences + [sequences[0]])
    }

    @Test func aRecordWhoseResultIsNotToldYetStays() throws {
        var bench = Bench(policy: policy())
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .finish(outcome()))
        bench.pass(.seconds(31 * 86_400))
        #expect(bench.removals.isEmpty)
        bench.send(.resultSettled("a"))
        bench.pass(.seconds(3))
        #expect(bench.removals.count == 1)
    }

    @Test func aNewLeaderKnowsWhatEndedBefore() throws {
        var old = Bench(policy: policy())
        old.start(1)
        try end(["a"], on: &old)
        var bench = Bench.successor(of: old, after: .seconds(31 * 86_400), place: old.store.lastSequence)
        bench.pass(.seconds(1))
        #expect(bench.removals == [try #require(old.store["a"]?.sequence)])
    }

    @Test func theIdOfARemovedJobIsFreeAgain() throws {
        var bench = Bench(policy: policy())
        bench.start(1)
        try end(["a"], on: &bench)
        bench.pass(.seconds(30 * 86_400))
        let sequence = try #require(bench.removals.first)
        bench.store.remove(at: sequence)
        bench.send(.recordRemoved(sequence: sequence, failure: nil))
        bench.submit(task("a"))
        bench.answer()
        #expect(bench.state("a")?.isTerminal == false)
    }

    @Test func aFullStoreAdmitsNothingUntilThereIsRoomAgain() {
        var bench = Bench()
        let pulled = bench.pulls.count
        bench.send(.storeFilled(0.81))
        #expect(bench.announcements.contains("queue_full"))
        for index in 0..<500 { bench.submit(task(JobID(stringLiteral: "j\(index)"))) }
        bench.answer()
        #expect(bench.pulls.count == pulled, "what was asked for is still taken; nothing more is")
        bench.send(.storeFilled(0.78))
        #expect(bench.pulls.count == pulled)
        bench.send(.storeFilled(0.7))
        #expect(bench.announcements.contains("queue_open"))
        #expect(bench.pulls.count == pulled + 1)
    }
}
