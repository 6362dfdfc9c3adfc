import WireJSON

/// What somebody wants to have run: the checked content of a submission.
package struct JobTask: Sendable, Equatable {
    /// The two ways to say what to run.
    package enum Command: Sendable, Equatable {
        /// A line for `/bin/sh -c`.
        case shell(String)
        /// A program and its arguments, run as they are. Never empty.
        case arguments([String])

        /// The word on the wire.
        package var type: String {
            switch self {
            case .shell: "shell"
            case .arguments: "cmd"
            }
        }
    }

    /// One variable for the job's environment.
    package struct Variable: Sendable, Equatable {
        package var name: String
        package var value: String

        package init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    /// The submitter's name for the job; nil asks for a derived one.
    package var id: JobID?
    package var command: Command
    /// The only card that may run the job, if it is pinned.
    package var gpu: GPUID?
    /// The directory to run in, relative to the card's cache or absolute; nil means the job's own directory.
    package var workingDirectory: String?
    package var environment: [Variable]
    /// How long one attempt may run; nil means the pool's default.
    package var timeout: Duration?
    /// How many failed attempts are followed by another; nil means the pool's default.
    package var maxRetries: Int?
    /// -100 to 100; a higher one is placed first.
    package var priority: Int
    /// How long the job may wait for its first card before it fails; nil means the pool's default.
    package var maxWait: Duration?
    /// What the job reads: of the cards that may run it, one whose cache has it is preferred. Sorted, each once.
    package var cacheKeys: [CacheKey]
    /// How many bytes of memory the job may use at most, all its processes together; nil: what its worker gives it.
    package var memoryBytes: UInt64?
    /// How many processes and threads the job may have at most; nil: what its worker gives it.
    package var maxProcesses: Int?
    /// What becomes of an attempt whose worker is cut off.
    package var partition: PartitionPolicy
    /// Who submitted it, as the client says: `user@host`. Nobody proves it.
    package var submitter: String?
    /// The job that this one runs again.
    package var retryOf: JobID?
    /// The client's clock when it first submitted this, seconds since 1970.
    package var submittedAt: Double?
}

/// The bounds of a submission, stated in the reason whenever one is broken.
package enum TaskLimits {
    /// Largest submission that is admitted, in bytes.
    package static let submissionBytes = 262_144
    /// Two levels less than other messages: the record holds the submission, and the run message the record.
    package static let json = JSONLimits(
        depth: JSONLimits.standard.depth - 2,
        elements: JSONLimits.standard.elements
    )
    /// Longest single argument, shell line or `NAME=value`: Linux refuses longer ones (MAX_ARG_STRLEN).
    package static let argumentBytes = 131_071
    /// Seconds; 366 days.
    package static let timeout = 0.001...31_622_400.0
    package static let maxRetries = 0...100
    /// From a megabyte, with which hardly a program starts, to a pebibyte.
    package static let memoryBytes = 1 << 20...1 << 50
    /// Linux has no more process ids.
    package static let maxProcesses = 1...4_194_304
    package static let priority = -100...100
    /// Longest name of a submitter, in bytes.
    package static let submitterBytes = 256
}

/// Why a submission is not admitted.
package struct TaskRefusal: Error, Equatable, CustomStringConvertible {
    package let code: FailureCode
    /// What is wrong and what to do, for a person.
    package let reason: String
    /// The id that the submission names, where one can be told.
    package let id: JobID?
    /// The submission could be read and names no id, so that the derived one stands for it.
    package let isAnonymous: Bool

    package init(_ reason: String, code: FailureCode = .badTask, id: JobID? = nil, isAnonymous: Bool = false) {
        self.code = code
        self.reason = reason
        self.id = id
        self.isAnonymous = isAnonymous
    }

    package var description: String { reason }
}
