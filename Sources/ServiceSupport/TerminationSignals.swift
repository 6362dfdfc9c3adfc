import CService
import Dispatch
import Glibc

/// The requests to end that come as signals: SIGTERM, SIGINT and SIGHUP.
///
/// Real handlers are installed, not an ignored disposition or a mask, because handlers are undone by exec: what we
/// start gets its signals as usual.
package enum TerminationSignals {
    /// Each signal as it arrives. The first says "end in order"; what a second one means is the program's choice.
    ///
    /// Call once in a process.
    /// - Throws: when the system gives no pipe.
    package static func stream() throws(FatalError) -> AsyncStream<Int32> {
        let descriptor = service_signal_pipe()
        guard descriptor >= 0 else {
            throw FatalError(.internalDefect, "cannot catch signals: \(SystemError.text(of: errno))")
        }
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self, bufferingPolicy: .bufferingOldest(16))
        let source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: .global())
        // The handler holds its own source: both live as long as the process, as the signal handlers do.
        source.setEventHandler { [source] in
            defer { withExtendedLifetime(source) {} }
            var number: UInt8 = 0
            while unsafe read(descriptor, &number, 1) == 1 { continuation.yield(Int32(number)) }
        }
        source.resume()
        return stream
    }

    /// The name of a signal for a person.
    package static func name(of signal: Int32) -> String {
        switch signal {
        case SIGTERM: "SIGTERM"
        case SIGINT: "SIGINT"
        case SIGHUP: "SIGHUP"
        default: "signal \(signal)"
        }
    }
}
