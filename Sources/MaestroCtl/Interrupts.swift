import Glibc
import ServiceSupport
import Synchronization

/// Ctrl-C and its like, for commands that have something to say before they end.
///
/// From the first listener on, signals no longer end the program by themselves: one that comes between two listeners is
/// the next one's.
enum Interrupts {
    /// The exit status of a program that was interrupted, as shells have it.
    static let exitStatus: Int32 = 128 + SIGINT

    private struct Listeners {
        var streams: [UInt: AsyncStream<Int32>.Continuation] = [:]
        /// What came while nobody listened: for whoever listens next.
        var missed: [Int32] = []
        var lastNumber: UInt = 0
    }

    private static let listeners = Mutex(Listeners())
    private static let limit = 4

    /// Catches the signals and hands each to all who listen, as long as the program lives.
    private static let source: Task<Void, Never>? = {
        let signals: AsyncStream<Int32>
        do {
            signals = try TerminationSignals.stream()
        } catch {
            // Without handlers Ctrl-C ends the program at once, which is no worse than saying nothing.
            return nil
        }
        return Task.detached { for await signal in signals { pass(on: signal) } }
    }()

    private static func pass(on signal: Int32) {
        listeners.withLock { listeners in
            for stream in listeners.streams.values { stream.yield(signal) }
            if listeners.streams.isEmpty, listeners.missed.count < limit { listeners.missed.append(signal) }
        }
    }

    /// Each signal as it arrives, until the listening task is cancelled.
    static func stream() -> AsyncStream<Int32> {
        _ = source
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self, bufferingPolicy: .bufferingOldest(limit))
        let number = listeners.withLock { listeners in
            listeners.lastNumber += 1
            listeners.streams[listeners.lastNumber] = continuation
            for signal in listeners.missed { continuation.yield(signal) }
            listeners.missed = []
            return listeners.lastNumber
        }
        continuation.onTermination = { _ in listeners.withLock { $0.streams[number] = nil } }
        return stream
    }
}
