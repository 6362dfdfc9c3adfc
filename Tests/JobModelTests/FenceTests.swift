import JobModel
import Testing
import WireJSON

struct FenceTests {
    /// Whatever the grace, a worker has ended the attempt before the leader's patience is over, and has time to run it.
    @Test(arguments: [1, 2, 6, 15, 60, 3600] as [Double], [0, 0.1, 5, 600] as [Double])
    func theTimesAddUp(limit: Double, grace: Double) {
        let fence = Fence(.inSeconds(limit))
        let kept = fence.grace(atMost: .inSeconds(grace))
        #expect(fence.window(grace: .inSeconds(grace)) + kept + fence.killTime == fence.limit)
        #expect(kept <= .inSeconds(grace))
        #expect(fence.window(grace: .inSeconds(grace)) >= fence.limit * 0.7)
        #expect(fence.interval(grace: .inSeconds(grace)) * 8 == fence.window(grace: .inSeconds(grace)))
        #expect(fence.patience >= fence.limit + .seconds(1))
    }

    @Test func theTaskSaysIt() throws {
        #expect(try JobTask(submission: Array(#"{"cmd":["x"]}"#.utf8)).partition == .continue)
        #expect(try JobTask(submission: Array(#"{"cmd":["x"],"partition":"fence"}"#.utf8)).partition == .fence)
        #expect(try JobTask(submission: Array(#"{"cmd":["x"],"partition":null}"#.utf8)).partition == .continue)
        let refusal = #expect(throws: TaskRefusal.self) {
            try JobTask(submission: Array(#"{"cmd":["x"],"partition":"stop"}"#.utf8))
        }
        #expect(refusal?.reason.contains(#""continue" or "fence""#) == true)
    }

    @Test func theRecordKeepsIt() throws {
        var ids = IdentifierSource(seed: 1)
        let limits = JobLimits(
            timeout: .seconds(1),
            maxRetries: 0,
            retryBackoff: .zero,
            maxWait: nil,
            fence: Fence(.inSeconds(2.5))
        )
        let record = JobRecord(
            admitting: try #require(JobID("a")),
            submission: Array(#"{"cmd":["x"]}"#.utf8),
            digest: "",
            order: 1,
            limits: limits,
            op: OperationID(from: &ids),
            at: Timestamp(nanoseconds: 0),
            submitted: 0
        )
        #expect(try JobRecord(parsing: record.encoded()) == record)
        #expect(String(decoding: record.encoded(), as: UTF8.self).contains(#""fence":2.5"#))
    }

    @Test func anAnswerIsToldFromTheStreams() throws {
        let answer = HeartbeatAnswer(counter: 9)
        #expect(try HeartbeatAnswer(parsing: answer.json.encoded()) == answer)
        for other in [#"{"stream":"ORG_EVENTS","seq":9}"#, #"{"ok":false,"counter":9}"#, #"{"ok":true}"#, "", "9"] {
            #expect(throws: MalformedMessage.self) { try HeartbeatAnswer(parsing: Array(other.utf8)) }
        }
    }
}
