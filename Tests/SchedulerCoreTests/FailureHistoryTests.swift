import JobModel
import Testing

@testable import SchedulerCore

/// A leader that has just begun judges no card that the one before it would not have judged.
@Suite("What a new leader knows of failures") struct FailureHistoryTests {
    private static let cards: [GPUID] = [1, 2, 3]

    private func bench() -> Bench {
        var bench = Bench()
        for gpu in Self.cards { bench.start(gpu) }
        return bench
    }

    /// The bench as it is, or a new leader's over the same records.
    private func goOn(_ old: Bench, isReplaced: Bool) -> Bench {
        guard isReplaced else { return old }
        var bench = Bench.successor(of: old, after: .seconds(2), isReplayed: false)
        for gpu in Self.cards { bench.registration(gpu, isReleased: false) }
        bench.finishReplay()
        for gpu in Self.cards { bench.beat(gpu) }
        bench.answer()
        return bench
    }

    private func end(_ id: JobID, _ outcome: AttemptOutcome, _ bench: inout Bench) throws {
        let isTriedAgain = bench.record(id)?.failures ?? 0 <= bench.record(id)?.limits.maxRetries ?? 0
        let retry = JobTransition.retry(outcome, delay: .seconds(1))
        try bench.commit(id, outcome.succeeded ? .finish(outcome) : isTriedAgain ? retry : .fail(outcome))
        bench.answer()
    }

    /// One attempt on a card, the coolest of all; of a job that is in its backoff, the next one.
    private func attempt(_ id: JobID, on gpu: GPUID, exit: Int = 0, retries: Int = 0, _ bench: inout Bench) throws {
        for other in Self.cards { bench.read(other, busy: other == gpu ? 0 : 90, temperature: 20) }
        if bench.record(id) == nil { bench.dispatch(id, retries: retries) } else { bench.pass(.seconds(1)) }
        #expect(bench.record(id)?.gpu == gpu)
        try bench.commit(id, .claim)
        try end(id, outcome(exit: exit), &bench)
    }

    private func fail(_ ids: [JobID], on gpu: GPUID, _ bench: inout Bench) throws {
        for id in ids { try attempt(id, on: gpu, exit: 1, &bench) }
    }

    @Test(arguments: [false, true])
    func aCardThatFailsAloneIsStillFound(isReplaced: Bool) throws {
        var bench = bench()
        try attempt("well", on: 2, &bench)
        bench = goOn(bench, isReplaced: isReplaced)
        try fail(["a", "b", "c"], on: 1, &bench)
        try attempt("x", on: 2, &bench)
        #expect(bench.controls[1]?.quarantine?.kind == .failures)
    }

    enum Failover: CaseIterable { case never, inBackoff, whileRunning }

    @Test(arguments: Failover.allCases)
    func aJobThatFailedElsewhereBeforeIsNotHeldAgainstItsNextCard(failover: Failover) throws {
        let jobs: [JobID] = ["a", "b", "c"]
        var bench = Bench()
        for gpu in Self.cards { bench.start(gpu, slots: 3) }
        for gpu in [1, 3] as [GPUID] { bench.ask(.cordon, gpu) }
        for id in jobs { try bench.run(id, retries: 1) }
        for id in jobs {
            #expect(bench.record(id)?.gpu == 2)
            try end(id, outcome(exit: 1), &bench)
        }
        bench.ask(.uncordon, 1)
        bench = goOn(bench, isReplaced: failover == .inBackoff)
        bench.pass(.seconds(1))
        for id in jobs { try bench.commit(id, .claim) }
        bench = goOn(bench, isReplaced: failover == .whileRunning)
        for id in jobs {
            #expect(bench.record(id)?.gpu == 1)
            try end(id, outcome(exit: 1), &bench)
        }
        bench.ask(.uncordon, 3)
        try attempt("x", on: 3, &bench)
        #expect(bench.controls[1]?.quarantine == nil)
    }

    @Test(arguments: [false, true])
    func aCardThatDidWellAfterItsFailuresShowsThatTheKindFailsNowAndThen(isReplaced: Bool) throws {
        var bench = bench()
        for round in 0..<2 {
            try fail([JobID(stringLiteral: "flaky-\(round)")], on: 1, &bench)
            try attempt(JobID(stringLiteral: "well-\(round)"), on: 1, &bench)
        }
        bench = goOn(bench, isReplaced: isReplaced)
        try fail(["a", "b", "c"], on: 1, &bench)
        try attempt("x", on: 2, &bench)
        #expect(bench.controls[1]?.quarantine == nil)
        try fail(["d", "e", "f", "g", "h"], on: 1, &bench)
        try attempt("y", on: 2, &bench)
        #expect(bench.controls[1]?.quarantine?.kind == .failures, "it needs eight")
    }

    @Test(arguments: [false, true])
    func jobsThatSucceededAtLastTellTheSameWhenEveryCardDidWellSince(isReplaced: Bool) throws {
        var bench = bench()
        for round in 0..<2 {
            let id = JobID(stringLiteral: "flaky-\(round)")
            try attempt(id, on: 1, exit: 1, retries: 1, &bench)
            try attempt(id, on: 2, &bench)
            for gpu in [1, 3] as [GPUID] { try attempt(JobID(stringLiteral: "well-\(round)-\(gpu)"), on: gpu, &bench) }
        }
        bench = goOn(bench, isReplaced: isReplaced)
        try fail(["a", "b", "c"], on: 1, &bench)
        try attempt("x", on: 2, &bench)
        #expect(bench.controls[1]?.quarantine == nil)
    }

    @Test func failuresOfBeforeAreNoneOfTheThree() throws {
        var bench = bench()
        try fail(["a", "b"], on: 1, &bench)
        bench = goOn(bench, isReplaced: true)
        try fail(["c"], on: 1, &bench)
        try attempt("x", on: 2, &bench)
        #expect(bench.controls[1]?.quarantine == nil, "the leader before may have known what took them back")
    }

    @Test func whatACardDidBeforeItWasClearedIsNoSign() throws {
        var bench = bench()
        for round in 0..<2 {
            try fail((0..<3).map { JobID(stringLiteral: "bad-\(round)-\($0)") }, on: 1, &bench)
            try attempt(JobID(stringLiteral: "elsewhere-\(round)"), on: 2, &bench)
            #expect(bench.controls[1]?.quarantine != nil)
            bench.ask(.clear, 1)
            try attempt(JobID(stringLiteral: "well-\(round)"), on: 1, &bench)
        }
        bench = goOn(bench, isReplaced: true)
        try fail(["f", "g", "h"], on: 1, &bench)
        try attempt("y", on: 2, &bench)
        #expect(bench.controls[1]?.quarantine?.kind == .failures, "nothing says that the kind fails by itself")
    }

    @Test func anEndBetweenTheTwoReplaysIsNotMissed() throws {
        var old = bench()
        try old.run("late", gpu: 1)
        for round in 0..<2 {
            try fail([JobID(stringLiteral: "flaky-\(round)")], on: 2, &old)
            if round == 0 { try attempt("well", on: 2, &old) }
        }
        var bench = Bench.successor(of: old, after: .seconds(2), isReplayed: false)
        for gpu in Self.cards { bench.registration(gpu, isReleased: false) }
        bench.send(.replayFinished(lastSequence: bench.store.lastSequence))
        try bench.commit("late", .fail(outcome(exit: 1)))
        bench.send(.controlReplayed)
        for gpu in Self.cards { bench.beat(gpu) }
        bench.answer()
        for gpu in [2, 1] as [GPUID] { try attempt(JobID(stringLiteral: "again-\(gpu)"), on: gpu, &bench) }
        try fail(["a", "b", "c"], on: 1, &bench)
        try attempt("x", on: 3, &bench)
        #expect(bench.controls[1]?.quarantine == nil, "cards 1 and 2 failed and recovered")
    }

    @Test func theHistoryStaysSmallAndLeavesOutWhatIsLongAgo() throws {
        var ids = IdentifierSource(seed: 5)
        let now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
        func done(_ sequence: UInt64, padding: Int = 0) throws -> RecordRevision {
            var record = JobRecord(
                admitting: JobID(stringLiteral: "job-\(sequence)"),
                submission: Array(#"{"cmd":["\#(String(repeating: "x", count: padding))"]}"#.utf8),
                digest: "",
                order: sequence,
                limits: .none,
                op: OperationID(from: &ids),
                at: now,
                submitted: 0
            )
            let owner = Incarnation(from: &ids)
            let schedule = JobTransition.schedule(gpu: 1, attempt: AttemptID(from: &ids), owner: owner)
            for step in [schedule, .claim, .finish(outcome())] {
                try record.apply(step, op: OperationID(from: &ids), at: now)
            }
            return RecordRevision(record: record, sequence: sequence, storedAt: now)
        }
        var history = FailureHistory()
        for sequence in 1...5000 { history.note(try done(UInt64(sequence)), at: now) }
        #expect(history.entries.count == FailureHistory.maximumEntries)
        #expect(history.entries.last?.job == "job-5000")
        history.note(try done(4000), at: now)
        #expect(history.entries.last?.job == "job-5000", "heard before")
        history.note(try done(6000), at: now + FailureLedger.recentTime + .seconds(1))
        #expect(history.entries.last?.job == "job-5000", "too long ago")
        for sequence in 7001...7100 { history.note(try done(UInt64(sequence), padding: 250_000), at: now) }
        #expect(history.entries.reduce(0) { $0 + $1.submission.count } <= FailureHistory.maximumSize)
    }
}
