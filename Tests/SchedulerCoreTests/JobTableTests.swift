import JobModel
import Testing

@testable import SchedulerCore

@Suite struct JobTableTests {
    private func job(
        _ id: JobID,
        digest: String = "sha256:00ff",
        maxWait: Duration? = nil,
        priority: Int = 0
    ) throws -> Job {
        let bytes = task(id, gpu: "rig1-3", priority: priority, retries: 2)
        let record = JobRecord(
            untried: id,
            submission: bytes,
            digest: digest,
            order: 700_000_001,
            limits: JobLimits(
                timeout: .seconds(3600),
                maxRetries: 2,
                retryBackoff: .milliseconds(1500),
                maxWait: maxWait
            ),
            op: "0123456789abcdef01234567",
            times: JobTimes(submitted: 1_700_000_000.25, updated: 1_700_000_001.125)
        )
        let revision = RecordRevision(record: record, sequence: 300, storedAt: Timestamp(nanoseconds: 0))
        var job = Job(revision, task: try record.task())
        job.isQueued = true
        if let maxWait { job.waitDeadline = Timestamp(nanoseconds: 5) + maxWait }
        return job
    }

    @Test(arguments: ["a", "deadbeef", "00112233445566778899aabbccddeeff0", "01J9ZQ5K8M3N4P5Q6R7S8T9V0W"] as [JobID])
    func whatRestsComesBackAsItWas(id: JobID) throws {
        for (digest, wait) in [("sha256:" + String(repeating: "0a", count: 32), nil), ("", Duration.seconds(9))] {
            let before = try job(id, digest: digest, maxWait: wait, priority: -100)
            let packed = try #require(RestingJob(before))
            let after = try #require(packed.job)
            #expect(after.record == before.record && after.sequence == 300 && after.isQueued)
            #expect(after.placement == before.placement && after.kind == before.kind && after.priority == -100)
            #expect(after.waitDeadline == before.waitDeadline)
            #expect(packed.isNamed(id) && !packed.isNamed("b") && packed.id == id)
            #expect(packed.order == 700_000_001 && packed.sequence == 300)
        }
    }

    @Test func whatHasMoreToItDoesNotRest() throws {
        var tried = try job("a")
        tried.placement.avoid = 1
        #expect(RestingJob(tried) == nil)
        var cancelled = try job("a")
        cancelled.cancel = Job.CancelIntent("why", RequestToken(1), after: nil)
        #expect(RestingJob(cancelled) == nil)
        var unqueued = try job("a")
        unqueued.isQueued = false
        #expect(RestingJob(unqueued) == nil)
        var odd = try job("a")
        try odd.record.apply(.waitForCard(reason: "none"), op: "o", at: Timestamp(nanoseconds: 0))
        #expect(RestingJob(odd) == nil)
    }

    @Test(arguments: 1...20) func itHoldsWhatADictionaryWould(seed: UInt64) throws {
        var ids = IdentifierSource(seed: seed)
        var table = JobTable()
        var plain: [JobID: Int] = [:]
        for _ in 0..<3000 {
            let id = try #require(JobID("j\(ids.next() % 400)"))
            switch ids.next() % 4 {
            case 0:
                table[id] = nil
                plain[id] = nil
            case 1 where plain[id] != nil:
                plain[id] = 1
                table[id]?.missedHeartbeats = 1
            case 2: table.rest()
            default:
                table[id] = try job(id)
                plain[id] = 0
            }
        }
        #expect(table.count == plain.count && Set(table.keys) == Set(plain.keys))
        for (id, missed) in plain {
            #expect(table[id]?.missedHeartbeats == missed)
            #expect(table.number(of: id).flatMap { table.id(of: $0) } == id)
        }
    }
}
