import JobModel
import JobTransport
import NATSClient
import ServiceSupport

/// The newest jobs of a pool, as its records say.
struct JobListing {
    /// Newest first.
    let jobs: [StoredRecord]
    /// How many more there are.
    let left: Int
    /// Records that could not be read.
    let unreadable: Int

    /// Asks the leader which jobs are the newest, and reads their records; where nobody leads, or the leader cannot say,
    /// all records are read.
    /// - Parameter states: only jobs in one of these; empty for all.
    init(_ client: PoolClient, states: Set<JobState>, limit: Int) async throws {
        if limit <= MaestroAPI.longestList, let listing = try await Self.named(client, states, limit) {
            self = listing
        } else {
            self = try await Self.replayed(client, states, limit)
        }
    }

    private init(_ newest: NewestJobs, left: Int, unreadable: Int = 0) {
        jobs = newest.jobs
        self.left = left
        self.unreadable = unreadable
    }

    private static func replayed(_ client: PoolClient, _ states: Set<JobState>, _ limit: Int) async throws -> Self {
        var newest = NewestJobs(limit: limit)
        var unreadable = 0
        try await Replay.records(client, what: "the jobs") { message in
            do {
                let stored = try StoredRecord(message)
                if states.isEmpty || states.contains(stored.record.state) { newest.add(stored) }
            } catch {
                unreadable += 1
            }
        }
        return Self(newest, left: newest.left, unreadable: unreadable)
    }

    // MARK: by the leader's index

    /// How long the leader may take before the records are read without it.
    private static let patience = Duration.milliseconds(500)

    /// Nil when the leader does not say, or what it named is gone meanwhile.
    private static func named(_ client: PoolClient, _ states: Set<JobState>, _ limit: Int) async throws -> Self? {
        guard let list = try await list(client, states, limit), let records = await read(list.places, client) else {
            return nil
        }
        var newest = NewestJobs(limit: limit)
        for stored in records where states.isEmpty || states.contains(stored.record.state) { newest.add(stored) }
        return Self(newest, left: max(0, list.total - list.places.count))
    }

    /// What the leader says, once it has seen all that was stored before anybody asked.
    private static func list(
        _ client: PoolClient,
        _ states: Set<JobState>,
        _ limit: Int
    ) async throws -> MaestroAPI.JobList? {
        let last: UInt64
        do {
            last = try await client.records.lastSequence()
        } catch {
            throw PoolClient.failure(error, "the jobs")
        }
        var api = client.api
        api.deadline = patience
        let end = ContinuousClock.now + patience
        while ContinuousClock.now < end {
            do throws(MaestroAPIError) {
                let list = try await api.jobs(in: states, limit: limit)
                if list.through >= last { return list }
            } catch {
                if case .unanswered = error { Console.say("maestroctl: \(error); reading all records") }
                return nil
            }
            await Pause.briefly()
        }
        return nil
    }

    /// Reads that are under way at once.
    private static let window = 64

    /// The records at these places, in no order; nil when one of them is not to be had.
    private static func read(_ places: [MaestroAPI.JobList.Place], _ client: PoolClient) async -> [StoredRecord]? {
        await withTaskGroup(of: StoredRecord?.self) { group in
            var records: [StoredRecord] = []
            records.reserveCapacity(places.count)
            for (number, place) in places.enumerated() {
                if number >= window, let read = await group.next() {
                    guard let record = read else { return nil }
                    records.append(record)
                }
                group.addTask { await read(place, client) }
            }
            for await read in group {
                guard let record = read else { return nil }
                records.append(record)
            }
            return records
        }
    }

    /// A record that is gone or cannot be read is for the replay to tell.
    private static func read(_ place: MaestroAPI.JobList.Place, _ client: PoolClient) async -> StoredRecord? {
        do {
            switch place {
            case .sequence(let sequence): return try await client.records.read(sequence: sequence)
            case .job(let job): return try await client.records.read(job)
            }
        } catch {
            return nil
        }
    }
}

/// The newest of many jobs, by the time of their submission; no more than `limit` are ever kept.
struct NewestJobs {
    let limit: Int
    private var seen = 0
    private var kept: [StoredRecord] = []

    init(limit: Int) { self.limit = limit }

    /// How many were left out because newer ones filled the limit.
    var left: Int { max(0, seen - limit) }

    mutating func add(_ job: StoredRecord) {
        seen += 1
        kept.append(job)
        // Sorted rarely, so that a million jobs cost little more than reading them.
        if limit < .max / 4, kept.count >= limit * 2 + 64 { trim() }
    }

    /// Newest first.
    var jobs: [StoredRecord] {
        var copy = self
        copy.trim()
        return copy.kept
    }

    private mutating func trim() {
        kept.sort { a, b in
            let (x, y) = (a.record.times.submitted, b.record.times.submitted)
            return x != y ? x > y : (a.record.order, a.record.id) > (b.record.order, b.record.id)
        }
        if kept.count > limit { kept.removeLast(kept.count - limit) }
    }
}
