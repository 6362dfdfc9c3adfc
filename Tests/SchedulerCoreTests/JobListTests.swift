import JobModel
import Testing
import WireJSON

@testable import SchedulerCore

@Suite struct JobListTests {
    /// The newest jobs as a client reads them: their names, and how many there are in all.
    private func list(_ bench: inout Bench, _ states: Set<JobState> = [], limit: Int = 50) throws -> (
        jobs: [JobID], total: Int64?
    ) {
        bench.forget()
        bench.send(.jobsAsked(JobQuery(states: states, limit: limit), RequestToken(9)))
        let answer = try #require(bench.replies[9]?.first)
        #expect(answer["through"]?.unsignedValue == bench.store.revisions.map(\.sequence).max())
        let jobs = try #require(answer["jobs"]?.arrayValue).compactMap { place -> JobID? in
            if let id = place["task_id"]?.stringValue.flatMap({ JobID($0) }) {
                #expect(bench.state(id)?.isTerminal == false)
                return id
            }
            let sequence = place["sequence"]?.unsignedValue
            let record = bench.store.revisions.first { $0.sequence == sequence }?.record
            #expect(record?.state.isTerminal == true)
            return record?.id
        }
        return (jobs, answer["total"]?.intValue)
    }

    /// Five jobs that came in the order of the alphabet; `a` is done, `b` runs, `d` is cancelled, `c` and `e` wait.
    private func bench() throws -> Bench {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .finish(outcome()))
        bench.send(.resultSeen("a"))
        try bench.run("b")
        for id in ["c", "d", "e"] as [JobID] { bench.dispatch(id) }
        bench.cancel("d")
        bench.answer()
        return bench
    }

    @Test func theNewestSubmissionsComeFirstWhateverBecameOfThem() throws {
        var bench = try bench()
        #expect(try list(&bench) == (["e", "d", "c", "b", "a"], 5))
        #expect(try list(&bench, limit: 2) == (["e", "d"], 5))
    }

    @Test func onlyJobsInTheStatesAskedForAreNamedAndCounted() throws {
        var bench = try bench()
        #expect(try list(&bench, [.done]) == (["a"], 1))
        #expect(try list(&bench, [.cancelled, .running]) == (["d", "b"], 2))
        #expect(try list(&bench, [.enqueued], limit: 1) == (["e"], 2))
        #expect(try list(&bench, [.failed]) == ([], 0))
    }

    @Test func aNewLeaderKnowsThemAll() throws {
        var old = try bench()
        var bench = Bench(store: old.store, isLeading: false)
        bench.takeWorkers(of: old, after: .seconds(1))
        bench.send(.began(resultsPlace: 0, serverClockOffset: .zero))
        for revision in old.store.revisions.sorted(by: { $0.sequence < $1.sequence }) {
            bench.send(.replayed(revision))
        }
        bench.send(.replayFinished(lastSequence: old.store.revisions.map(\.sequence).max() ?? 0))
        let (known, total) = try list(&bench)
        // The bench submits all at the same microsecond, which is as much as a record tells.
        #expect(Set(known) == ["a", "b", "c", "d", "e"] && total == 5)
        #expect(try list(&bench, [.done]) == list(&old, [.done]))
        bench.dispatch("f")
        #expect(try list(&bench, limit: 1) == (["f"], 6))
    }

    @Test func aRecordThatIsRemovedIsNamedNoMore() throws {
        var policy = SchedulerPolicy()
        policy.keepDoneFor = .seconds(60)
        policy.idHorizon = .seconds(60)
        var bench = Bench(policy: policy)
        bench.start(1)
        for id in ["a", "b"] as [JobID] {
            try bench.run(id)
            try bench.commit(id, .finish(outcome()))
            bench.send(.resultSeen(id))
        }
        bench.pass(.seconds(120), beating: [1])
        let sequence = try #require(bench.store["a"]?.sequence)
        #expect(bench.removals.contains(sequence))
        bench.send(.recordRemoved(sequence: sequence, failure: nil))
        #expect(try list(&bench) == (["b"], 1))
    }

    @Test func whoCannotReadARecordSaysSo() throws {
        var bench = try bench()
        bench.send(.recordUnreadable("x", sequence: 99, reason: "of a newer version"))
        bench.send(.jobsAsked(JobQuery(limit: 5), RequestToken(9)))
        #expect(bench.replies[9]?.first?["code"]?.stringValue == "incomplete")
    }
}

@Suite struct JobIndexTests {
    private func ended(_ id: JobID, at submitted: Double, sequence: UInt64) -> EndedJob {
        let record = JobRecord(
            refusing: id,
            state: .rejected,
            outcome: AttemptOutcome(code: .forbidden, reason: "no"),
            submission: [],
            digest: "sha256:",
            order: 1,
            op: "op",
            at: Timestamp(nanoseconds: 0),
            submitted: submitted
        )
        return EndedJob(record, sequence: sequence)
    }

    private func order(_ index: JobIndex) -> [UInt64] {
        var numbers: [UInt64] = []
        index.newest { found in
            switch found {
            case .live(let number, _): numbers.append(UInt64(number))
            case .ended(let job): numbers.append(job.sequence)
            }
            return true
        }
        return numbers
    }

    @Test func aClockThatWasPutBackLeavesTheOrderOfTime() {
        var index = JobIndex()
        for (number, time) in [(1, 10.0), (2, 20.0), (3, 5.0), (4, 10.0), (5, 20.0)] as [(UInt32, Double)] {
            index.insert(number, submitted: time)
        }
        #expect(order(index) == [5, 2, 4, 1, 3])
    }

    @Test func anEndIsCountedOnceHoweverOftenItIsTold() {
        var index = JobIndex()
        index.insert(1, submitted: 10)
        for _ in 0..<2 { index.end(1, as: ended("a", at: 10, sequence: 77)) }
        // Nobody knew this one before.
        index.end(nil, as: ended("b", at: 4, sequence: 50))
        #expect(order(index) == [77, 50])
        #expect(index.count(of: .rejected) == 2)
    }

    @Test func whatIsGoneIsPassedOverAndCleanedUp() {
        var index = JobIndex()
        for number in 0..<5000 as Range<UInt32> { index.insert(number, submitted: Double(number)) }
        for number in 0..<4990 as Range<UInt32> { index.remove(number, submitted: Double(number)) }
        #expect(order(index) == Array((4990..<5000).reversed()))
        index.insert(6000, submitted: 4995.5)
        #expect(order(index).prefix(5) == [4999, 4998, 4997, 4996, 6000])
    }

    @Test func jobsThatRestAreFoundByTheTimeOfTheirSubmission() {
        var bench = Bench()
        for id in ["a", "b", "c"] as [JobID] { bench.dispatch(id) }
        let times = bench.core.jobs.submissions.map(\.submitted)
        let expected: [Double] = ["a", "b", "c"].compactMap { (id: JobID) in bench.record(id)?.times.submitted }
        #expect(times == expected && times.count == 3)
    }
}
