import Glibc

/// The exit codes of our programs (docs/PROTOCOL.md); from 64 on they are those of sysexits.h.
package enum ExitCode: Int32, Sendable {
    /// It worked; a service ended in order; every job that was waited for is done.
    case success = 0
    /// A job failed, was cancelled or rejected; a check failed.
    case failure = 1
    /// The command line is wrong.
    case usage = 64
    /// The task is refused.
    case badTask = 65
    /// There is no such job, card or file.
    case notFound = 66
    /// No server, no JetStream, no maestro.
    case unavailable = 69
    /// A defect of ours.
    case internalDefect = 70
    /// Another process has it: a worker this card, an `up` this directory.
    case taken = 73
    /// A file of this program's own cannot be written or read.
    case inputOutput = 74
    /// Not now: the deadline passed, or the queue is full. The same again later may work.
    case deadline = 75
    /// The server refuses these credentials.
    case credentials = 77
    /// The configuration is wrong; a supervisor must not restart the program.
    case configuration = 78
}

/// Why a program ends: what it says, and the code it ends with.
package struct FatalError: Error, Equatable, CustomStringConvertible {
    package let code: ExitCode
    /// One line for a person: what happened, to what, what to do.
    package let message: String

    package init(_ code: ExitCode, _ message: String) {
        self.code = code
        self.message = message
    }

    package init(_ error: SettingsError) { self.init(.configuration, error.description) }

    package var description: String { message }

    /// Prints "program: message" to standard error and ends the process.
    package func exit(program: String) -> Never {
        StandardStream.error.write(Array("\(program): \(Secrets.masked(message))\n".utf8))
        Glibc.exit(code.rawValue)
    }
}
