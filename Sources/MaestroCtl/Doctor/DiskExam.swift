import Glibc
import JobModel
import NATSClient
import ServiceSupport

/// The disks of this machine that the pool needs, and what the journal of submissions holds.
enum DiskExam {
    /// A file system with something of ours on it.
    struct Disk: Sendable, Equatable {
        /// What lies there: "the server's store".
        let purpose: String
        let path: String
        let free: UInt64
        let total: UInt64
        let isReadOnly: Bool

        /// Nil when there is no such directory.
        init?(_ purpose: String, _ path: String) {
            var facts = statvfs()
            guard unsafe statvfs(path, &facts) == 0 else { return nil }
            self.init(
                purpose: purpose,
                path: path,
                free: Self.bytes(UInt64(facts.f_bavail), of: UInt64(facts.f_frsize)),
                total: Self.bytes(UInt64(facts.f_blocks), of: UInt64(facts.f_frsize)),
                isReadOnly: facts.f_flag & UInt(ST_RDONLY) != 0
            )
        }

        /// Some file systems call themselves larger than a number holds.
        private static func bytes(_ blocks: UInt64, of size: UInt64) -> UInt64 {
            let (bytes, isTooLarge) = blocks.multipliedReportingOverflow(by: size)
            return isTooLarge ? .max : bytes
        }

        init(purpose: String, path: String, free: UInt64, total: UInt64, isReadOnly: Bool) {
            self.purpose = purpose
            self.path = path
            self.free = free
            self.total = total
            self.isReadOnly = isReadOnly
        }
    }

    struct Facts: Sendable {
        var disks: [Disk] = []
        /// The store's disk, if it is of this machine.
        var store: Disk?
        /// Submissions in the journal.
        var open = 0
        /// The age of the oldest of them, in seconds.
        var oldest = 0.0
        var unreadableLines = 0
        var journal = ""
    }

    /// Where workers of this machine keep things unless they are told otherwise.
    private static let workerPlaces = [
        ("the cache of the cards", "/data/gpucache"), ("the cards' merged cache", "/srv/gpucache"),
        ("the workers' reports", "/var/log/gpu-worker"),
    ]

    static func gather(
        _ pool: PoolFacts,
        _ journal: SubmissionJournal?,
        store: String?,
        isServerHere: Bool,
        now: Double
    ) throws(FatalError) -> Facts {
        var facts = Facts()
        // What the server tells of its disk is of this machine only if the server is.
        if let path = store ?? (isServerHere ? pool.monitor?.storeDirectory : nil) {
            facts.store = Disk("the server's store", path)
            if facts.store == nil, let store {
                throw FatalError(.notFound, "--store \(store): there is no such directory")
            }
        }
        facts.disks = [facts.store].compactMap { $0 } + workerPlaces.compactMap { Disk($0.0, $0.1) }
        guard let journal else { return facts }
        let contents = try journal.read()
        facts.journal = journal.path
        facts.open = contents.entries.count
        facts.oldest = contents.entries.map { now - $0.time }.max() ?? 0
        facts.unreadableLines = contents.unreadable
        if let slash = journal.path.lastIndex(of: "/"), let disk = Disk("the journal", String(journal.path[..<slash])) {
            facts.disks.append(disk)
        }
        return facts
    }

    // MARK: judging

    static func judge(_ facts: Facts, _ pool: PoolFacts) -> [Finding] {
        facts.disks.compactMap(judge) + judgeSum(facts, pool) + judgeJournal(facts)
    }

    private static func judge(_ disk: Disk) -> Finding? {
        if disk.isReadOnly {
            return Finding(
                .disk,
                .error,
                "disk_read_only",
                "\(disk.purpose) lies on a read-only disk",
                evidence: disk.path,
                advice: "see dmesg for why the kernel made it so, and mount it for writing"
            )
        }
        let share = disk.total > 0 ? Double(disk.free) / Double(disk.total) : 1
        guard disk.free < 1 << 30 || share < 0.05 else { return nil }
        return Finding(
            .disk,
            disk.free < 200 << 20 ? .error : .warning,
            "disk_full",
            "little room is left for \(disk.purpose)",
            evidence: "\(disk.path): \(Printable.bytes(disk.free)) of \(Printable.bytes(disk.total)) are free",
            advice: "make room: a full disk stops what writes to it"
        )
    }

    /// What the streams may grow to, against what there is.
    private static func judgeSum(_ facts: Facts, _ pool: PoolFacts) -> [Finding] {
        let limits = pool.streams.values.compactMap { $0.config["max_bytes"]?.intValue }.filter { $0 > 0 }
        let sum = limits.reduce(UInt64(0)) { $0 &+ UInt64($1) }
        let used = pool.streams.values.reduce(0) { $0 + $1.bytes }
        var bounds: [(UInt64, String)] = []
        if let store = facts.store {
            bounds.append((max(store.free, store.free &+ used), "the disk has \(Printable.bytes(store.free)) free"))
        }
        if let most = pool.monitor?.maxStorage, most > 0 {
            bounds.append((most, "the server's max_file_store is \(Printable.bytes(most))"))
        }
        guard let least = bounds.min(by: { $0.0 < $1.0 }), sum > least.0 else { return [] }
        return [
            Finding(
                .disk,
                .warning,
                "streams_exceed_disk",
                "the streams may grow to more than there is room for",
                evidence: "their limits sum up to \(Printable.bytes(sum)), they hold \(Printable.bytes(used)), "
                    + least.1,
                advice:
                    "lower their max_bytes (nats stream edit), or give the server more: a full disk is worse than a "
                    + "full stream"
            )
        ]
    }

    private static func judgeJournal(_ facts: Facts) -> [Finding] {
        var findings: [Finding] = []
        if facts.oldest > 24 * 3600 {
            findings.append(
                Finding(
                    .disk,
                    .note,
                    "journal_old",
                    "\(Printable.count(facts.open, "submission")) from here wait to have their end seen",
                    evidence: "\(facts.journal); the oldest is \(Printable.duration(facts.oldest)) old",
                    advice: "maestroctl reconcile forgets what has ended, and submits again what was lost"
                )
            )
        }
        if facts.unreadableLines > 0 {
            findings.append(
                Finding(
                    .disk,
                    .note,
                    "journal_damaged",
                    "\(Printable.count(facts.unreadableLines, "line")) of the journal cannot be read",
                    evidence: facts.journal,
                    advice: "the end of a write that a crash cut off looks so; maestroctl reconcile drops them"
                )
            )
        }
        return findings
    }

    static func summary(_ facts: Facts) -> String {
        let least = facts.disks.min { $0.free < $1.free }
        let free = least.map { "\(Printable.bytes($0.free)) free at the least (\($0.path))" } ?? "nothing of ours here"
        return "\(free), \(Printable.count(facts.open, "submission")) in the journal"
    }
}
