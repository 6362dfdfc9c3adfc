import ArgumentParser
import JobModel
import JobTransport
import ServiceSupport
import Synchronization

/// Where submissions are written down before they are sent.
struct JournalOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Keep the journal of submissions in this directory (else below XDG_STATE_HOME).",
            valueName: "directory"
        )
    )
    var journal: String?
    @Flag(help: "Keep no journal: what a disaster takes from the pool cannot be submitted again.")
    var noJournal = false

    /// The journal of the pool that a client is connected to; nil when there is to be none, or no place for one.
    func journal(of client: PoolClient) -> SubmissionJournal? {
        journal(of: SubmissionJournal.pool(client.settings[CommonKeys.natsURL], client.names))
    }

    func journal(of pool: String) -> SubmissionJournal? {
        guard !noJournal, let directory = journal ?? SubmissionJournal.standardDirectory else { return nil }
        return SubmissionJournal(directory: directory, pool: pool)
    }

    /// For a command that submits.
    func keeper(for client: PoolClient) async throws(FatalError) -> JournalKeeper {
        let keeper = JournalKeeper(journal(of: client), isWished: journal != nil)
        if !noJournal, journal(of: client) == nil {
            Console.say(
                "maestroctl: not journalled: there is neither HOME nor XDG_STATE_HOME; name a --journal directory"
            )
        }
        try await keeper.makeRoom(client)
        return keeper
    }
}

/// Writes submissions down for a command, as far as that can be done.
///
/// A journal that somebody named must work. One that lies where it lies by itself may fail: then that is said, and the
/// submission goes on without it.
final class JournalKeeper: Sendable {
    private let journal: Mutex<SubmissionJournal?>
    private let isWished: Bool

    init(_ journal: SubmissionJournal?, isWished: Bool) {
        self.journal = Mutex(journal)
        self.isWished = isWished
    }

    /// When this returns the submissions are on the disk, or it was said that they are not.
    func keep(_ submissions: [Submission]) throws(FatalError) {
        try attempt { journal throws(FatalError) in try journal.append(submissions, at: WallClock.now()) }
    }

    func noteEnded(_ jobs: [JobID]) {
        tell { journal throws(FatalError) in try journal.noteEnded(Set(jobs)) }
    }

    func noteRefused(_ submissions: [Submission]) {
        tell { journal throws(FatalError) in try journal.noteRefused(Set(submissions)) }
    }

    /// A journal that has grown large is cleaned up; one that stays large takes no more.
    func makeRoom(_ client: PoolClient) async throws(FatalError) {
        guard let journal = journal.withLock({ $0 }), journal.size > SubmissionJournal.cleanBytes else { return }
        do throws(FatalError) {
            let contents = try journal.read()
            if journal.size > 2 * contents.cleanedBytes {
                Console.say("maestroctl: the journal is large; looking which of its jobs have ended")
                try await Reconciliation(client: client, journal: journal).cleanUp()
            }
        } catch {
            try fail(error)
        }
        guard journal.size > SubmissionJournal.mostBytes else { return }
        throw FatalError(
            .inputOutput,
            "the submission journal \(journal.path) holds \(Printable.bytes(journal.size)) of jobs that have not ended: "
                + "see `maestroctl reconcile`, or submit with --no-journal"
        )
    }

    private func attempt(_ body: (SubmissionJournal) throws(FatalError) -> Void) throws(FatalError) {
        guard let journal = journal.withLock({ $0 }) else { return }
        do throws(FatalError) {
            try body(journal)
        } catch {
            try fail(error)
        }
    }

    /// For notes, which only save work later.
    private func tell(_ body: (SubmissionJournal) throws(FatalError) -> Void) {
        guard let journal = journal.withLock({ $0 }) else { return }
        do throws(FatalError) {
            try body(journal)
        } catch {
            Console.say("maestroctl: \(error.message)")
        }
    }

    private func fail(_ error: FatalError) throws(FatalError) {
        if isWished { throw error }
        journal.withLock { $0 = nil }
        Console.say("maestroctl: not journalled: \(error.message); name a --journal directory, or say --no-journal")
    }
}

/// Submissions that are written down before they are handed on: as many together as there are without waiting, with
/// one sync for all of them.
struct JournalledTasks: Sequence, IteratorProtocol {
    /// Submissions that are synced together at most.
    private static let group = 4096
    private static let groupBytes = 4 << 20

    private var tasks: FileSubmission.Tasks
    private let keeper: JournalKeeper
    private var ready: ArraySlice<Result<Submission, FatalError>> = []

    init(_ tasks: FileSubmission.Tasks, _ keeper: JournalKeeper) {
        self.tasks = tasks
        self.keeper = keeper
    }

    mutating func next() -> Result<Submission, FatalError>? {
        if ready.isEmpty { fill() }
        return ready.popFirst()
    }

    private mutating func fill() {
        var group: [Submission] = []
        var bytes = 0
        var failure: FatalError?
        repeat {
            guard let task = tasks.next() else { break }
            switch task {
            case .success(let submission):
                group.append(submission)
                bytes += submission.bytes.count
            case .failure(let error): failure = error
            }
        } while failure == nil && tasks.isReady && group.count < Self.group && bytes < Self.groupBytes
        do throws(FatalError) {
            try keeper.keep(group)
            ready = group.map { .success($0) } + (failure.map { [.failure($0)] } ?? [])
        } catch {
            ready = [.failure(error)]
        }
    }
}
