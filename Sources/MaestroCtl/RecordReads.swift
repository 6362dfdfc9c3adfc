import JobModel
import JobTransport

/// One read of a job's record. A type of its own, since with a tuple as the result of the group's tasks the optimised
/// program crashed as the group copied the id (swift_retain under tuple_initializeWithCopy, Swift 6.3.1).
struct RecordReading: Sendable {
    let job: JobID
    let result: Result<StoredRecord?, any Error>

    init(of job: JobID, _ client: PoolClient) async {
        self.job = job
        do {
            result = .success(try await client.records.read(job))
        } catch {
            result = .failure(error)
        }
    }
}

/// Reads the records of many jobs, some at a time, by the answer of their stream's leader.
enum RecordReads {
    /// - Parameter take: gets each reading as it comes, in no order; what it throws ends the reading.
    static func run<Failure: Error>(
        _ jobs: some Sequence<JobID>,
        _ client: PoolClient,
        _ take: (RecordReading) throws(Failure) -> Void
    ) async throws(Failure) {
        var failure: Failure?
        await withTaskGroup(of: RecordReading.self) { group in
            var next = jobs.makeIterator()
            for _ in 0..<64 {
                guard let job = next.next() else { break }
                group.addTask { await RecordReading(of: job, client) }
            }
            while let reading = await group.next(), failure == nil {
                do throws(Failure) {
                    try take(reading)
                } catch {
                    failure = error
                }
                if failure == nil, let job = next.next() {
                    group.addTask { await RecordReading(of: job, client) }
                }
            }
        }
        if let failure { throw failure }
    }
}
