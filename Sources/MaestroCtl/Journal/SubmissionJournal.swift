import Glibc
import JobModel
import JobTransport
import ServiceSupport

/// What this user has submitted to one pool and has not seen the end of, on this machine's disk.
///
/// A submission is written here, and synced, before it is sent. So whatever a disaster does to the pool's server, what
/// it has lost is still known here: ``Reconciliation`` submits it again, the same bytes under the same id.
struct SubmissionJournal: Sendable {
    /// One file for each pool.
    let path: String

    /// Up to this size it is rewritten whenever something in it has ended.
    static let smallBytes = 1 << 20
    /// Above this size the journal is cleaned up before it grows on.
    static let cleanBytes = 64 << 20
    /// Above this it takes no more.
    static let mostBytes = 256 << 20

    /// - Parameter directory: the directory of the journals of all pools.
    init(directory: String, pool: String) { path = "\(directory)/\(pool).jsonl" }

    /// Where journals lie when nobody says; nil when this user has no place for them.
    static var standardDirectory: String? {
        if let state = HostInfo.environmentVariable("XDG_STATE_HOME"), state.hasPrefix("/") {
            return state + "/maestro/submissions"
        }
        guard let home = HostInfo.environmentVariable("HOME"), home.hasPrefix("/") else { return nil }
        return home + "/.local/state/maestro/submissions"
    }

    /// The name of a pool's journal: the addresses of its servers in order, and the stream of submissions.
    static func pool(_ servers: [ServerURL], _ names: PoolNames) -> String {
        let places = servers.map { url in
            let (host, port) = url.endpoint
            return "\(["127.0.0.1", "::1"].contains(host) ? "localhost" : host)_\(port)"
        }
        let name = (places.sorted() + [names.workQueueStream, names.enqueueSubject]).joined(separator: ".")
        let safe = name.map { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) ? $0 : "_" }
        return String(safe.prefix(200))
    }

    /// Writes submissions down; when this returns they survive a power cut.
    func append(_ submissions: [Submission], at time: Double) throws(FatalError) {
        guard !submissions.isEmpty else { return }
        var lines: [UInt8] = []
        lines.reserveCapacity(submissions.reduce(0) { $0 + $1.bytes.count + 128 })
        for submission in submissions {
            lines += JournalEntry(submission: submission, time: time).line()
            lines.append(UInt8(ascii: "\n"))
        }
        try JournalFile(path).append(lines, durable: true)
    }

    /// Notes that the end of jobs was seen.
    func noteEnded(_ jobs: Set<JobID>) throws(FatalError) {
        try note(jobs.map(JournalLine.ended(line:))) { jobs.contains($0.id) }
    }

    /// Notes that the pool has not taken these, and that this was told.
    func noteRefused(_ submissions: Set<Submission>) throws(FatalError) {
        try note(submissions.map(JournalLine.refused(line:))) { submissions.contains($0) }
    }

    /// A small journal is rewritten; to a large one a note is added. That is not synced: a note that is lost costs a
    /// look at the pool.
    private func note(_ lines: [[UInt8]], _ isSettled: (Submission) -> Bool) throws(FatalError) {
        guard !lines.isEmpty, size > 0 else { return }
        guard size > Self.smallBytes else { return try forget(isSettled) }
        try JournalFile(path).append(lines.flatMap { $0 + [UInt8(ascii: "\n")] }, durable: false)
    }

    /// How many bytes it holds; 0 when there is none.
    var size: UInt64 { FileContents.size(path) ?? 0 }

    /// What the journal holds.
    func read() throws(FatalError) -> JournalContents {
        guard size > 0 else { return JournalContents() }
        do {
            return JournalContents(parsing: try FileContents.read(path, limit: Self.mostBytes * 2))
        } catch {
            throw FatalError(.inputOutput, "the submission journal \(error)")
        }
    }

    /// Forgets submissions, and what earlier notes have ended. A journal that holds nothing any more is removed.
    func forget(_ isSettled: (Submission) -> Bool) throws(FatalError) {
        guard size > 0 else { return }
        let file = try JournalFile(path)
        // Read under the lock: nothing that somebody is just adding gets lost.
        let kept = try read().lines { !isSettled($0) }
        guard !kept.isEmpty else { return try file.remove() }
        try file.replace(with: JournalLine.cleaned(line: kept.count) + [UInt8(ascii: "\n")] + kept)
    }
}

/// The content of a journal.
struct JournalContents: Sendable {
    /// The submissions whose end is not known, in the order of their first try.
    private(set) var entries: [JournalEntry] = []
    /// Lines of a newer version, kept as they are.
    private var newer: [[UInt8]] = []
    /// Lines that cannot be read.
    private(set) var unreadable = 0
    /// The bytes that were left when it was last cleaned up.
    private(set) var cleanedBytes = 0

    var newerLines: Int { newer.count }

    init() {}

    init(parsing bytes: [UInt8]) {
        var places: [JobID: [Int]] = [:]
        var all: [JournalEntry?] = []
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            switch JournalLine(parsing: Array(line)) {
            case .submitted(let entry):
                // Submitted again: the first try counts, since the id is as old as that.
                let known = places[entry.submission.id, default: []]
                if known.contains(where: { all[$0]?.submission == entry.submission }) { continue }
                places[entry.submission.id] = known + [all.count]
                all.append(entry)
            case .ended(let job):
                for place in places.removeValue(forKey: job) ?? [] { all[place] = nil }
            case .refused(let submission):
                for place in places[submission.id, default: []] where all[place]?.submission == submission {
                    all[place] = nil
                }
            case .cleaned(let bytes): cleanedBytes = bytes
            case .newer: newer.append(Array(line))
            case .unreadable: unreadable += 1
            }
        }
        entries = all.compactMap { $0 }
    }

    /// The lines of a journal that holds only some of the submissions.
    func lines(keeping isKept: (Submission) -> Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        for line in newer + entries.filter({ isKept($0.submission) }).map({ $0.line() }) {
            bytes += line
            bytes.append(UInt8(ascii: "\n"))
        }
        return bytes
    }
}
