import JobModel
import SchedulerCore
import Testing

@Suite struct DispatchTests {
    @Test func theRunMessageIsTheRecordAsItWasStored() throws {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.answerWrite()
        #expect(bench.writes.map(\.record.state) == [.scheduled])
        #expect(bench.runs.isEmpty)
        bench.answerWrite()
        let run = try #require(bench.runs.first)
        #expect(run.gpu == 1)
        #expect(run.message == RunMessage(record: try #require(bench.record("a")), sequence: 2))
        #expect(run.message.record.owner == bench.life(of: 1))
        #expect(bench.runs.count == 1)
    }

    @Test func aRefusedRunMessageTakesTheJobBackAndItIsDispatchedAnew() throws {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a")
        let first = try #require(bench.runs.first?.message.attempt)
        bench.send(.runRefused("a", first, reason: "the stream is full"))
        #expect(bench.writes.map(\.record.state) == [.enqueued])
        #expect(bench.writes.map(\.record.reason) == ["the stream is full"])
        bench.answer()
        #expect(bench.runs.count == 2)
        #expect(bench.runs.last?.message.attempt != first)
        bench.send(.runRefused("a", first, reason: "told twice"))
        #expect(bench.writes.isEmpty, "that attempt is no longer the job's")
    }

    @Test func anAttemptNotClaimedInTimeIsTakenBackAndItsRunMessageDeleted() throws {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a")
        bench.storeRuns()
        let attempt = try #require(bench.record("a")?.attempt)
        bench.pass(.milliseconds(29_999), beating: [1])
        #expect(bench.record("a")?.attempt == attempt)
        bench.pass(.milliseconds(1), beating: [1])
        #expect(bench.deletions.map(\.attempt) == [attempt])
        #expect(bench.deletions.map(\.sequence) == [1])
        #expect(bench.state("a") == .scheduled)
        #expect(bench.record("a")?.attempt != attempt)
        #expect(bench.record("a")?.tries == 0)
    }

    @Test func aRunMessageStoredAfterItsAttemptWasTakenBackIsDeleted() throws {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a")
        let attempt = try #require(bench.record("a")?.attempt)
        bench.cancel("a")
        bench.answer()
        #expect(bench.deletions.map(\.sequence) == [nil])
        bench.forget()
        bench.send(.runPublished("a", 1, attempt, sequence: 9))
        #expect(bench.deletions.map(\.sequence) == [9])
        #expect(bench.deletions.map(\.attempt) == [attempt])
    }

    @Test func aClaimThatComesJustBeforeTheTakeBackStands() throws {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a")
        let attempt = try #require(bench.record("a")?.attempt)
        bench.send(.runRefused("a", attempt, reason: "no answer"))
        #expect(bench.writes.map(\.record.state) == [.enqueued])
        try bench.commit("a", .claim)
        bench.answer()
        #expect(bench.state("a") == .running)
        #expect(bench.record("a")?.attempt == attempt)
        bench.pass(.seconds(60), beating: [1])
        #expect(bench.state("a") == .running)
    }

    @Test func aJobWhoseDispatchIsRefusedGivesItsSlotBackAndIsTriedAgain() throws {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.answerWrite()
        bench.answerWrite(.refused("maximum bytes exceeded"))
        #expect(bench.runs.isEmpty)
        bench.dispatch("b")
        #expect(bench.state("b") == .scheduled, "the slot was free")
        try bench.commit("b", .claim)
        try bench.commit("b", .finish(outcome()))
        bench.pass(.seconds(1), beating: [1])
        #expect(bench.state("a") == .scheduled)
    }

    @Test func aJobThatAnotherLeaderScheduledFirstIsLeftToIt() throws {
        var bench = Bench()
        bench.start(1)
        bench.start(2)
        bench.submit(task("a"))
        bench.answerWrite()
        let write = try #require(bench.writes.first)
        #expect(write.record.gpu == 1)
        var theirs = try #require(bench.record("a"))
        try theirs.apply(
            .schedule(gpu: 2, attempt: try #require(AttemptID("theirs")), owner: try #require(bench.life(of: 2))),
            op: "theirs",
            at: bench.now
        )
        _ = bench.store.write(theirs, expected: write.expected, at: bench.now)
        bench.answer()
        #expect(bench.runs.isEmpty)
        #expect(bench.writes.isEmpty)
        bench.dispatch("b")
        #expect(bench.record("b")?.gpu == 1, "its slot is free again")
    }

    @Test func aJobCancelledWhileItIsBeingScheduledIsNotDispatched() {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.answerWrite()
        bench.cancel("a")
        #expect(bench.writes.count == 1)
        bench.answer()
        #expect(bench.state("a") == .cancelled)
        #expect(bench.runs.isEmpty)
    }

    @Test func aRecordThatIsRemovedIsForgotten() {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.answerWrite()
        bench.answerWrite(.conflict(nil))
        #expect(bench.core.queueSize == 0)
        bench.dispatch("b")
        #expect(bench.state("b") == .scheduled)
    }

    @Test func aStoreThatAnswersWithAnOlderRevisionIsAskedAgainLater() throws {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.answerWrite()
        let known = try #require(bench.store["a"])
        bench.answerWrite(.conflict(RecordRevision(record: known.record, sequence: 0, storedAt: bench.now)))
        #expect(bench.writes.isEmpty)
        bench.pass(.seconds(1))
        #expect(bench.state("a") == .scheduled)
    }
}

@Suite struct RetryTests {
    @Test func aFailedAttemptIsDueWhenItsBackoffHasPassedSinceTheStreamStoredIt() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .retry(outcome(exit: 3), delay: .seconds(8)))
        #expect(bench.core.queueSize == 1)
        #expect(bench.core.inflight == 0)
        bench.pass(.milliseconds(7999), beating: [1])
        #expect(bench.state("a") == .retry)
        bench.pass(.milliseconds(1), beating: [1])
        #expect(bench.state("a") == .scheduled)
        #expect(bench.errors.isEmpty, "its worker tells of the failed attempt")
    }

    @Test func aSlotIsFreeDuringTheBackoff() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.dispatch("b")
        try bench.commit("a", .retry(outcome(exit: 3), delay: .seconds(8)))
        bench.answer()
        #expect(bench.state("b") == .scheduled)
    }

    @Test func aJobThatWaitedTooLongFails() throws {
        var bench = Bench()
        bench.submit(task("a", gpu: 3, maxWait: 60))
        bench.answer()
        bench.pass(.milliseconds(59_999))
        #expect(bench.state("a") == .waitingGPU)
        bench.pass(.milliseconds(1))
        let record = try #require(bench.record("a"))
        #expect(record.state == .failed)
        #expect(record.outcome?.code == .waitedTooLong)
        #expect(record.reason.contains("card 3"))
        #expect(bench.errors.map(\.event.code) == [.waitedTooLong])
        #expect(bench.errors.map(\.messageID) == ["err:a"])
        #expect(bench.results.map(\.event.state) == [.failed])
        #expect(bench.core.queueSize == 0)
    }

    @Test func maxWaitDoesNotEndAJobThatRuns() throws {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a", maxWait: 60))
        bench.answer()
        try bench.commit("a", .claim)
        bench.pass(.seconds(100), beating: [1])
        #expect(bench.state("a") == .running)
    }
}
