import JobModel

/// A job whose record is terminal, in 16 bytes.
struct EndedJob: Sendable, Equatable {
    /// When its submission was stored, seconds since 1970.
    let submitted: Double
    /// The sequence of its record, the state in the highest four bits.
    fileprivate let content: UInt64

    private static let states: [JobState] = JobState.allCases.filter(\.isTerminal)
    fileprivate static let sequenceBits: UInt64 = 60

    init(_ record: JobRecord, sequence: UInt64) {
        submitted = record.times.submitted
        let number = Self.states.firstIndex(of: record.state) ?? 0
        content = UInt64(number + 1) << Self.sequenceBits | sequence
    }

    /// Reads what ``content`` holds; nil when it is of no job that has ended.
    fileprivate init?(submitted: Double, content: UInt64) {
        guard (1...Self.states.count).contains(Int(content >> Self.sequenceBits)) else { return nil }
        self.submitted = submitted
        self.content = content
    }

    /// Where its record stands in ORG_JOBS. It stays there until it is removed.
    var sequence: UInt64 { content & (1 << Self.sequenceBits - 1) }
    var state: JobState { Self.states[Int(content >> Self.sequenceBits) - 1] }
}

/// All jobs by the time of their submission, ended ones too, 16 bytes each: so the newest are found without reading the rest.
///
/// Few share one time, since a stream stores one submission after the other; those are looked through one by one.
///
/// A leader builds it when it has read all records, and keeps it up to date from then on.
struct JobIndex: Sendable {
    private struct Entry: Sendable {
        let submitted: Double
        /// Of an ended job what ``EndedJob`` says; else the job's number in ``JobTable``, or ``gone``.
        var content: UInt64

        static let gone = UInt64.max
    }

    /// Oldest first. Those of one time stand in the order in which they came.
    private var entries: [Entry] = []
    private var gone = 0
    private var ended: [JobState: Int] = [:]

    /// - Parameters:
    ///   - ended: in any order.
    ///   - live: numbers of jobs that have not ended, with the times of their submission.
    init(ended: some Sequence<EndedJob> = [], live: some Sequence<(number: UInt32, submitted: Double)> = []) {
        entries.reserveCapacity(ended.underestimatedCount + live.underestimatedCount)
        for job in ended {
            entries.append(Entry(submitted: job.submitted, content: job.content))
            self.ended[job.state, default: 0] += 1
        }
        for job in live { entries.append(Entry(submitted: job.submitted, content: UInt64(job.number))) }
        entries.sort { ($0.submitted, $0.content) < ($1.submitted, $1.content) }
    }

    /// How many have ended in that state.
    func count(of state: JobState) -> Int { ended[state] ?? 0 }

    // MARK: changes

    mutating func insert(_ number: UInt32, submitted: Double) {
        insert(Entry(submitted: submitted, content: UInt64(number)))
    }

    /// A job has ended; it may have been said before.
    /// - Parameter number: the one that it had, if it was known.
    mutating func end(_ number: UInt32?, as job: EndedJob) {
        guard find(job.content, job.submitted) == nil else { return }
        ended[job.state, default: 0] += 1
        if let index = number.flatMap({ find(UInt64($0), job.submitted) }) {
            entries[index].content = job.content
        } else {
            insert(Entry(submitted: job.submitted, content: job.content))
        }
    }

    /// A job is dropped that has not ended.
    mutating func remove(_ number: UInt32, submitted: Double) {
        if let index = find(UInt64(number), submitted) { remove(at: index) }
    }

    /// The record of an ended job is gone.
    mutating func remove(_ job: EndedJob) {
        guard let index = find(job.content, job.submitted) else { return }
        ended[job.state, default: 0] -= 1
        remove(at: index)
    }

    /// Submissions come in their order, or nearly so: what is new belongs at the end or close to it.
    private mutating func insert(_ entry: Entry) {
        entries.insert(entry, at: end(of: entry.submitted))
    }

    private mutating func remove(at index: Int) {
        entries[index].content = Entry.gone
        gone += 1
        guard gone > 1024, gone > entries.count / 2 else { return }
        entries.removeAll { $0.content == Entry.gone }
        gone = 0
    }

    /// The index behind the last entry of a time.
    private func end(of submitted: Double) -> Int {
        if let last = entries.last, last.submitted <= submitted { return entries.count }
        var (low, high) = (0, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].submitted <= submitted { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func find(_ content: UInt64, _ submitted: Double) -> Int? {
        var index = end(of: submitted) - 1
        while index >= 0, entries[index].submitted == submitted {
            if entries[index].content == content { return index }
            index -= 1
        }
        return nil
    }

    // MARK: questions

    enum Found: Sendable {
        case live(number: UInt32, submitted: Double)
        case ended(EndedJob)
    }

    /// The jobs from the newest to the oldest, until `visit` says that it has seen enough.
    func newest(_ visit: (Found) -> Bool) {
        for entry in entries.reversed() where entry.content != Entry.gone {
            let found: Found =
                if let job = EndedJob(submitted: entry.submitted, content: entry.content) {
                    .ended(job)
                } else {
                    .live(number: UInt32(truncatingIfNeeded: entry.content), submitted: entry.submitted)
                }
            if !visit(found) { return }
        }
    }
}
