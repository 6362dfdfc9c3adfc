import JobModel
import JobTransport
import ServiceSupport
import TaskSigning

/// Submits the tasks of a file, one JSON object a line.
struct FileSubmission {
    let pool: PoolOptions
    let path: String
    let isJSON: Bool
    let key: SigningKey?
    let journal: JournalOptions

    private struct Counts {
        var stored = 0
        var known = 0
        var conflicts = 0
        var full = 0
        var refused = 0
        var unknown = 0

        var failures: Int { conflicts + full + refused + unknown }

        /// The gravest kind: what no repetition mends, no answer, no room for now, an id that is taken.
        var code: ExitCode {
            if refused + unknown > 0 { return .unavailable }
            return full > 0 ? .deadline : .badTask
        }
    }

    /// All tasks are checked before the first is sent, unless they come through a pipe, which cannot be read twice.
    func run() async throws {
        let lines = try LineReader(path)
        let checked = try check()
        let client = try await pool.connect()
        try await client.requirePool()
        var source = IdentifierSource()
        var counts = Counts()
        var firstProblem: String?
        var refused: [Submission] = []
        let keeper = try await journal.keeper(for: client)
        let submitter = Submitter(client.jetStream, names: client.names, window: Self.window)
        let tasks = checked.map { Tasks(checked: $0, lines) } ?? Tasks(lines: lines, key: key, source: &source)
        let journalled = JournalledTasks(tasks, keeper)
        var printed: [UInt8] = []
        var failure: FatalError?
        do {
            try await submitter.submit(journalled, patience: .seconds(60)) { submission, outcome in
                switch outcome {
                case .stored(let sequence, let isDuplicate):
                    counts.stored += 1
                    if isDuplicate { counts.known += 1 }
                    printed +=
                        isJSON
                        ? SubmitCommand.line(submission.id, sequence: sequence, isDuplicate: isDuplicate).encoded()
                        : Array(submission.id.text.utf8)
                    printed.append(UInt8(ascii: "\n"))
                case .conflict:
                    counts.conflicts += 1
                    refused.append(submission)
                    firstProblem = firstProblem ?? SubmitCommand.conflict(submission.id)
                case .full(let reason):
                    counts.full += 1
                    refused.append(submission)
                    firstProblem = firstProblem ?? "\(submission.id): \(reason)"
                case .refused(let reason):
                    counts.refused += 1
                    refused.append(submission)
                    firstProblem = firstProblem ?? "\(submission.id): \(reason)"
                case .unknown(let error):
                    counts.unknown += 1
                    firstProblem = firstProblem ?? "\(submission.id): \(error)"
                }
            } afterBatch: {
                Console.write(printed)
                printed.removeAll(keepingCapacity: true)
            }
        } catch {
            failure = error
        }
        keeper.noteRefused(refused)
        await client.close()
        try conclude(counts, firstProblem, failure)
    }

    /// Submissions that may wait for their acks at one time: enough to go on with while the next ones are written down,
    /// and few enough that a server which stores 500 a second answers each before its deadline.
    private static let window = 2048
    /// Up to this many bytes of checked submissions are kept, so that they need not be read and checked again.
    private static let keptBytes = 64 << 20

    /// Checks all tasks of a file that can be read twice.
    /// - Returns: them, if they are not too many to keep.
    private func check() throws -> [Submission]? {
        guard LineReader.canBeReadTwice(path) else { return nil }
        var source = IdentifierSource()
        var checked: [Submission] = []
        var bytes = 0
        for task in Tasks(lines: try LineReader(path), key: key, source: &source) {
            let submission = try task.get()
            bytes += submission.bytes.count
            if bytes <= Self.keptBytes { checked.append(submission) } else { checked = [] }
        }
        return bytes <= Self.keptBytes ? checked : nil
    }

    private func conclude(
        _ counts: Counts,
        _ firstProblem: String?,
        _ failure: FatalError?
    ) throws {
        let known = counts.known > 0 ? ", \(counts.known) of them known from before" : ""
        if let failure {
            throw FatalError(
                failure.code,
                "\(failure.message); \(Printable.count(counts.stored, "job")) before it: submitted\(known)"
            )
        }
        guard counts.failures == 0 else {
            throw FatalError(
                counts.code,
                "\(counts.stored) jobs were submitted, \(counts.failures - counts.unknown) refused, and of "
                    + "\(counts.unknown) it is unknown; the first of these: \(firstProblem ?? "")"
            )
        }
        if !isJSON { Console.say("maestroctl: \(Printable.count(counts.stored, "job")) submitted\(known)") }
    }

    /// The lines of a file as submissions; the first bad one ends it.
    struct Tasks: Sequence, IteratorProtocol {
        /// In place of the lines: what was read from them and checked before.
        private var checked: ArraySlice<Submission>?
        var lines: LineReader
        private let key: SigningKey?
        private var source: IdentifierSource
        private let clock = MonotonicClock()
        private var hasFailed = false

        init(lines: LineReader, key: SigningKey? = nil, source: inout IdentifierSource) {
            self.lines = lines
            self.key = key
            self.source = IdentifierSource(seed: source.next())
        }

        init(checked: [Submission], _ lines: LineReader) {
            self.checked = checked[...]
            self.lines = lines
            key = nil
            source = IdentifierSource()
        }

        /// Whether the next one can be had without waiting for whoever writes the file.
        var isReady: Bool { checked != nil || !hasFailed && lines.isReady }

        mutating func next() -> Result<Submission, FatalError>? {
            if checked != nil { return checked?.popFirst().map { .success($0) } }
            guard !hasFailed else { return nil }
            while let line = lines.next() {
                if line.isBlank { continue }
                do {
                    let submission = try Submission(
                        task: line,
                        now: clock.now(),
                        submitter: Who.submits,
                        from: &source
                    )
                    return .success(try submission.signed(with: key))
                } catch {
                    hasFailed = true
                    return .failure(
                        FatalError(.badTask, "\(lines.name) line \(lines.line): the task is refused: \(error)")
                    )
                }
            }
            return nil
        }
    }
}
