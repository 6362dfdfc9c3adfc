import JobModel
import SchedulerCore
import Testing
import WireJSON

@Suite struct AdmissionTests {
    @Test func aSubmissionIsSettledOnlyWhenItsRecordIsStored() throws {
        var bench = Bench()
        bench.submit(task("a"))
        #expect(bench.writes.map(\.expected) == [0])
        #expect(bench.settled.isEmpty)
        bench.answer()
        #expect(bench.settled == [1])
        let record = try #require(bench.record("a"))
        #expect(record.state == .enqueued)
        #expect(record.submission == task("a"))
        #expect(record.order == 1)
    }

    @Test func theStreamMayTellOfTheRecordBeforeTheAnswerDoes() throws {
        var bench = Bench()
        bench.submit(task("a"))
        let write = try #require(bench.writes.first)
        let result = bench.store.write(write.record, expected: 0, at: bench.now)
        bench.send(.recordChanged(try #require(bench.store["a"])))
        #expect(bench.settled == [1])
        bench.writes.removeFirst()
        bench.send(.writeEnded("a", write.record.op, result))
        #expect(bench.settled == [1])
        #expect(bench.core.queueSize == 1)
    }

    @Test func theSameSubmissionIsOneJobWhileItIsBeingAdmitted() {
        var bench = Bench()
        bench.submit(task("a"))
        bench.submit(task("a"))
        #expect(bench.writes.count == 1)
        #expect(bench.settled.isEmpty)
        bench.answer()
        #expect(bench.settled == [1, 2])
        #expect(bench.core.queueSize == 1)
    }

    @Test func theSameSubmissionIsOneJobWhileItWaitsAndAfterItEnded() throws {
        var bench = Bench()
        bench.submit(task("a"))
        bench.answer()
        bench.submit(task("a"))
        #expect(bench.settled == [1, 2])
        #expect(bench.announcements.contains("duplicate"))

        bench.start(1)
        try bench.commit("a", .claim)
        try bench.commit("a", .finish(outcome()))
        bench.forget()
        bench.submit(task("a"))
        bench.answer()
        #expect(bench.settled == [3])
        #expect(bench.errors.isEmpty)
        #expect(bench.announcements.contains("duplicate"))
        #expect(bench.state("a") == .done)
    }

    @Test func anIdWithOtherContentIsRefusedAndTheFirstJobUntouched() throws {
        var bench = Bench()
        bench.submit(task("a"))
        bench.submit(task("a", shell: "while it is admitted"))
        bench.answer()
        bench.submit(task("a", shell: "while it waits"))
        try bench.end("a")
        bench.submit(task("a", shell: "after it ended"))
        bench.answer()
        #expect(bench.errors.map(\.event.code) == [.idConflict, .idConflict, .idConflict])
        #expect(bench.errors.allSatisfy { $0.event.job == "a" && $0.event.state == nil })
        #expect(Set(bench.errors.map(\.messageID)).count == 3)
        #expect(bench.settled.sorted() == [1, 2, 3, 4])
        #expect(bench.record("a")?.submission == task("a"))
    }

    @Test func aRedeliveredConflictIsToldUnderTheSameMessageId() throws {
        var bench = Bench()
        bench.dispatch("a")
        let other = task("a", shell: "other")
        bench.submit(other)
        try bench.end("a")
        bench.redeliver(other, sequence: 2)
        bench.answer()
        #expect(bench.errors.count == 2)
        #expect(Set(bench.errors.map(\.messageID)).count == 1)
    }

    @Test func aSubmissionWithoutAnIdGetsOneThatARedeliveryRepeats() throws {
        var bench = Bench()
        bench.submit(task(nil))
        bench.answer()
        let id = JobID.derived(timestamp: 1_700_000_000_000_000_001, sequence: 1)
        #expect(bench.state(id) == .enqueued)
        bench.redeliver(task(nil), sequence: 1)
        #expect(bench.settled == [1, 1])
        #expect(bench.core.queueSize == 1)
    }

    @Test func aRefusedTaskWithAnIdBecomesARejectedRecordAndAnError() throws {
        var bench = Bench()
        bench.submit(Array(#"{"task_id":"a","cmd":[]}"#.utf8))
        #expect(bench.settled.isEmpty)
        bench.answer()
        let record = try #require(bench.record("a"))
        #expect(record.state == .rejected)
        #expect(record.submission.isEmpty)
        #expect(bench.errors.map(\.event.code) == [.badTask])
        #expect(bench.errors.map(\.event.state) == [.rejected])
        #expect(bench.settled == [1])
        #expect(bench.results.map(\.event.state) == [.rejected])
        #expect(bench.results.map(\.event.outcome?.reason) == [record.reason])
    }

    @Test func aRefusedTaskWithoutAnIdIsRejectedUnderTheDerivedOne() throws {
        var bench = Bench()
        bench.submit(Array(#"{"type":"shell"}"#.utf8))
        bench.answer()
        let id = JobID.derived(timestamp: 1_700_000_000_000_000_001, sequence: 1)
        #expect(bench.state(id) == .rejected)
        #expect(bench.settled == [1])
    }

    @Test(arguments: ["{", "", "[1]", #"{"task_id":"a.b","cmd":["x"]}"#, #"{"task_id":7,"cmd":["x"]}"#])
    func whatNamesNoIdIsAnsweredByAnErrorAlone(text: String) {
        var bench = Bench()
        bench.submit(Array(text.utf8))
        #expect(bench.writes.isEmpty)
        #expect(bench.errors.map(\.event.job) == [nil])
        #expect(bench.errors.map(\.event.code) == [.badTask])
        #expect(bench.settled == [1])
    }

    @Test func aRefusedTaskThatIsRepeatedWaitsForItsRecord() {
        var bench = Bench()
        let bad = Array(#"{"task_id":"a","cmd":[]}"#.utf8)
        bench.submit(bad)
        bench.submit(bad)
        #expect(bench.settled.isEmpty)
        bench.answer()
        #expect(bench.settled.sorted() == [1, 2])
        #expect(bench.errors.count == 1)
    }

    @Test func aGoodTaskUnderTheIdOfOneThatIsBeingRejectedIsToldSo() {
        var bench = Bench()
        bench.submit(Array(#"{"task_id":"a","cmd":[]}"#.utf8))
        bench.submit(task("a"))
        bench.answer()
        #expect(bench.state("a") == .rejected)
        #expect(bench.errors.map(\.event.code).sorted { $0.rawValue < $1.rawValue } == [.badTask, .idConflict])
        #expect(bench.settled.sorted() == [1, 2])
    }

    @Test func aRefusedTaskLeavesTheRecordOfItsIdAlone() throws {
        var bench = Bench()
        bench.dispatch("a")
        let bad = Array(#"{"task_id":"a","cmd":[]}"#.utf8)
        bench.submit(bad)
        try bench.end("a")
        bench.redeliver(bad, sequence: 2)
        bench.answer()
        #expect(bench.errors.map(\.event.code) == [.badTask, .badTask])
        #expect(Set(bench.errors.map(\.messageID)).count == 1)
        #expect(bench.errors.allSatisfy { $0.event.state == nil })
        #expect(bench.settled == [1, 2, 2])
        #expect(bench.state("a") == .done)
    }

    @Test func aSubmissionOlderThanIdsAreRememberedIsRefused() throws {
        var policy = SchedulerPolicy()
        policy.idHorizon = .seconds(3600)
        var bench = Bench(policy: policy)
        bench.submit(task("waited"), age: .seconds(3601))
        bench.submit(task("sent-late", submittedAt: 1_700_000_000 - 3601))
        bench.submit(task("in-time", submittedAt: 1_700_000_000 - 3599), age: .seconds(3599))
        bench.answer()
        #expect(bench.errors.map(\.event.code) == [.tooOld, .tooOld])
        #expect(bench.state("waited") == .rejected)
        #expect(bench.state("sent-late") == .rejected)
        #expect(bench.state("in-time") == .enqueued)
    }

    @Test func aSubmissionWhoseIdWasCancelledBeforeDoesNotRun() throws {
        var bench = Bench()
        bench.cancel("a")
        bench.answerReads()
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        bench.start(1)
        bench.submit(task("a"))
        bench.answer()
        #expect(bench.settled == [1])
        #expect(bench.errors.isEmpty)
        #expect(bench.state("a") == .cancelled)
        #expect(bench.runs.isEmpty)
    }

    @Test func aSubmissionThatArrivesWhileItsIdIsBeingCancelledDoesNotRun() throws {
        var bench = Bench()
        bench.cancel("a")
        bench.answerReads()
        bench.submit(task("a"))
        #expect(bench.settled.isEmpty)
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        #expect(bench.settled == [1])
        #expect(bench.errors.isEmpty)
    }

    @Test func aFullStoreDelaysAnAdmissionAndLosesNothing() throws {
        var bench = Bench()
        bench.submit(task("a"))
        bench.answerWrite(.refused("maximum bytes exceeded"))
        #expect(bench.settled.isEmpty)
        #expect(bench.notices.count == 1)
        bench.submit(task("a"))
        bench.pass(.milliseconds(999))
        #expect(bench.writes.isEmpty)
        #expect(bench.state("a") == nil)
        bench.pass(.milliseconds(1))
        #expect(bench.state("a") == .enqueued)
        #expect(bench.settled == [1, 2])
    }

    @Test func aRecordThatAnotherLeaderCreatedIsTakenOver() throws {
        var bench = Bench()
        bench.submit(task("a"))
        let write = try #require(bench.writes.first)
        let theirs = JobRecord(
            admitting: "a",
            submission: task("a"),
            digest: digest(task("a")),
            order: 1,
            limits: write.record.limits,
            op: "theirs",
            at: bench.now,
            submitted: 1_700_000_000
        )
        _ = bench.store.write(theirs, expected: 0, at: bench.now)
        bench.answer()
        #expect(bench.settled == [1])
        #expect(bench.core.queueSize == 1)
        bench.start(1)
        #expect(bench.state("a") == .scheduled)
    }

    @Test func aRecordThatMovedOnBeforeItsCreationWasAnsweredIsKnownAsItIs() throws {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        let write = try #require(bench.writes.first)
        let result = bench.store.write(write.record, expected: 0, at: bench.now)
        try bench.commit("a", .schedule(gpu: 1, attempt: try #require(AttemptID("x")), owner: "theirs"))
        #expect(bench.settled == [1])
        #expect(bench.core.inflight == 1)
        bench.writes.removeFirst()
        bench.send(.writeEnded("a", write.record.op, result))
        #expect(bench.settled == [1])
        #expect(bench.core.queueSize == 0)
        #expect(bench.core.inflight == 1)
    }

    @Test func demandNeverExceedsTheWindow() {
        var policy = SchedulerPolicy()
        policy.admissionWindow = 8
        var bench = Bench(policy: policy, isLeading: false)
        bench.send(.began(resultsPlace: 0, serverClockOffset: .zero))
        #expect(bench.pulls.isEmpty)
        bench.send(.replayFinished(lastSequence: 0))
        #expect(bench.pulls == [8])
        for index in 0..<8 { bench.submit(task(JobID(stringLiteral: "j\(index)"))) }
        #expect(bench.pulls == [8], "none of the eight is settled")
        bench.answerWrite()
        #expect(bench.pulls == [8, 1])
        bench.answerWrite()
        #expect(bench.pulls == [8, 1], "no pull for less than a quarter of the window while one is open")
        bench.answer()
        #expect(bench.pulls.reduce(0, +) <= 16)
    }

    @Test func aFullQueueAdmitsNothingAndSaysSoUntilItHasRoom() throws {
        var policy = SchedulerPolicy()
        policy.maxQueue = 40
        var bench = Bench(policy: policy, isLeading: false)
        bench.send(.began(resultsPlace: 0, serverClockOffset: .zero))
        bench.finishReplay()
        #expect(bench.pulls == [40])
        #expect(!bench.announcements.contains("queue_full"), "nothing waits yet")
        for index in 0..<40 { bench.submit(task(JobID(stringLiteral: "j\(index)"))) }
        bench.answer()
        #expect(bench.announcements.filter { $0 == "queue_full" }.count == 1)
        #expect(bench.pulls == [40])
        bench.send(.statusAsked(RequestToken(1)))
        #expect(bench.replies[1]?.first?["queue_full"]?.boolValue == true)

        bench.start(1, slots: 2)
        #expect(!bench.announcements.contains("queue_open"), "a twentieth has to be free")
        #expect(bench.pulls == [40, 1])
        try bench.commit("j0", .claim)
        try bench.commit("j0", .finish(outcome()))
        bench.answer()
        #expect(bench.announcements.filter { $0 == "queue_open" }.count == 1)
    }
}

extension Bench {
    /// Takes a job that waits to its end on card 1.
    mutating func end(_ id: JobID) throws {
        if life(of: 1) == nil { start(1) }
        try commit(id, .claim)
        try commit(id, .finish(outcome()))
        answer()
    }
}
