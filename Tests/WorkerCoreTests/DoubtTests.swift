import JobModel
import Testing
import WorkerCore

/// After a time without the bus no record is sure to stand where it stood: it is read again before it is written.
struct DoubtTests {
    /// A server that lost its power gave the sequence of this worker's record to somebody else's attempt.
    private func giveAway(_ job: JobID, on bench: Bench) throws {
        let sequence = try #require(bench.records[job]).sequence
        let isScheduled = try #require(bench.records[job]).record.state == .scheduled
        try bench.move(job, isScheduled ? .takeBack(reason: "not claimed") : .lose(reason: "not heard of"))
        let other = AttemptID(from: &bench.ids)
        try bench.move(job, .schedule(gpu: bench.gpu, attempt: other, owner: bench.otherLife))
        try bench.move(job, .claim)
        let record = try #require(bench.records[job]).record
        bench.records[job] = RecordRevision(record: record, sequence: sequence)
    }

    @Test func anEndIsNotWrittenOverSomebodyElsesAttempt() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .code(0))))
        bench.handle(.reconnected)
        try giveAway(started.job, on: bench)
        bench.todo = []
        bench.handle(.reported(started.attempt))
        #expect(bench.take(.readRecord(started.job, started.attempt)))
        bench.handle(.recordRead(started.attempt, bench.records[started.job]))
        #expect(!bench.todo.contains { if case .write = $0 { true } else { false } })
        #expect(bench.take(.close(started.attempt, started.job)))
        #expect(try bench.state("a") == .running)
    }

    @Test func anEndIsWrittenWhereTheRecordStandsNow() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .code(0))))
        bench.handle(.reconnected)
        bench.todo = []
        bench.handle(.reported(started.attempt))
        #expect(!bench.todo.contains { if case .write = $0 { true } else { false } })
        bench.answer()
        #expect(try bench.state("a") == .done)
    }

    @Test func aClaimIsNotWrittenOverSomebodyElsesAttempt() throws {
        let bench = try Bench.serving()
        let first = try bench.run("first")
        let message = try bench.dispatch("next")
        let attempt = try #require(message.attempt)
        let token = bench.deliver(message)
        bench.answer()
        bench.handle(.reconnected)
        bench.answer()
        try giveAway(message.record.id, on: bench)
        bench.handle(.ended(first.attempt, ProcessEnd(exit: .code(0))))
        #expect(bench.take(.readRecord(message.record.id, attempt)))
        bench.handle(.recordRead(attempt, bench.records[message.record.id]))
        #expect(bench.take(.ack(token)))
        #expect(!bench.todo.contains { if case .write(attempt, _, _) = $0 { true } else { false } })
    }
}
