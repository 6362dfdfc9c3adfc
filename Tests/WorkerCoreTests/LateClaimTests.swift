import JobModel
import Testing
import WorkerCore

/// A claim whose answer comes late: this process was stopped, or the server hung, and the job may be somebody else's by now.
struct LateClaimTests {
    private static let patience = WorkerPolicy().claimPatience

    /// A claim that was stored, and whose answer has not been heard.
    private struct Claimed {
        let bench: Bench
        let message: RunMessage
        let attempt: AttemptID
        let token: MessageToken
        let answer: WorkerEvent

        init() throws {
            bench = try Bench.serving()
            message = try bench.dispatch("a")
            attempt = try #require(message.attempt)
            token = bench.deliver(message)
            bench.handle(try #require(bench.takeStoreAction()))
            answer = try #require(bench.takeStoreAction())
            #expect(try bench.state("a") == .running)
        }

        var job: JobID { message.record.id }
        var isStarted: Bool { bench.todo.contains { if case .start(attempt, _) = $0 { true } else { false } } }
        var isAskedFor: Bool { bench.todo.contains(.readRecord(job, attempt)) }

        func hear(after delay: Duration) {
            bench.now = bench.now + delay
            bench.handle(answer)
        }
    }

    @Test func anAnswerInTimeStartsTheJobAtOnce() throws {
        let claimed = try Claimed()
        claimed.hear(after: Self.patience)
        #expect(claimed.isStarted)
        #expect(!claimed.isAskedFor)
    }

    @Test func aLateOneStartsItWhenItsRecordStillSaysSo() throws {
        let claimed = try Claimed()
        claimed.hear(after: Self.patience + .nanoseconds(1))
        #expect(!claimed.isStarted)
        // It holds its slot, and the pool goes on hearing that this worker has it.
        #expect(claimed.bench.core.running.map(\.attempt) == [claimed.attempt])
        claimed.bench.answer()
        #expect(claimed.isStarted)
    }

    @Test func whatWasGivenAwayMeanwhileIsNotStarted() throws {
        let claimed = try Claimed()
        try claimed.bench.move(claimed.job, .lose(reason: "not heard of"))
        claimed.hear(after: .seconds(60))
        claimed.bench.answer()
        #expect(!claimed.isStarted)
        #expect(claimed.bench.take(.ack(claimed.token)))
        #expect(claimed.bench.core.running.isEmpty)
        #expect(try claimed.bench.state("a") == .enqueued)
    }

    @Test func whatRunsElsewhereByNowOrIsGoneIsNotStarted() throws {
        let elsewhere = try Claimed()
        let bench = elsewhere.bench
        try bench.move(elsewhere.job, .lose(reason: "not heard of"))
        let other = AttemptID(from: &bench.ids)
        try bench.move(elsewhere.job, .schedule(gpu: bench.gpu, attempt: other, owner: bench.otherLife))
        try bench.move(elsewhere.job, .claim)
        let gone = try Claimed()
        gone.bench.records = [:]
        for claimed in [elsewhere, gone] {
            claimed.hear(after: .seconds(60))
            claimed.bench.answer()
            #expect(!claimed.isStarted)
            #expect(claimed.bench.take(.ack(claimed.token)))
        }
        #expect(try bench.state("a") == .running)
    }

    @Test func aLookThatIsAnsweredTooLateIsRepeated() throws {
        let claimed = try Claimed()
        let bench = claimed.bench
        claimed.hear(after: .seconds(60))
        // Read now, and heard only when this process goes on once more.
        let read = try #require(bench.takeStoreAction())
        try bench.move(claimed.job, .lose(reason: "not heard of"))
        bench.now = bench.now + .seconds(60)
        bench.handle(read)
        #expect(!claimed.isStarted)
        #expect(claimed.isAskedFor)
        bench.answer()
        #expect(!claimed.isStarted)
        #expect(try bench.state("a") == .enqueued)
    }

    @Test func aCancelThatWasAskedForMeanwhileIsHeeded() throws {
        let claimed = try Claimed()
        try claimed.bench.move(claimed.job, .requestCancel(reason: "not needed"))
        claimed.hear(after: .seconds(60))
        claimed.bench.answer()
        #expect(!claimed.isStarted)
        #expect(try claimed.bench.state("a") == .cancelled)
    }

    @Test func toldToStopMeanwhileItGivesTheJobBack() throws {
        let claimed = try Claimed()
        claimed.hear(after: .seconds(60))
        claimed.bench.handle(.stopAsked)
        claimed.bench.answer()
        #expect(!claimed.isStarted)
        #expect(try claimed.bench.state("a") == .enqueued)
        #expect(claimed.bench.records[claimed.job]?.record.lost == 1)
    }
}
