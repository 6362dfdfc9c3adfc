import ArgumentParser
import Glibc
import JobModel
import ServiceSupport
import WireJSON

/// What the commands print: data on standard output, talk on standard error.
enum Console {
    /// Prints one line of data. Ends the program quietly when nobody reads any more (`maestroctl list | head`).
    static func print(_ line: String) { write(Array((line + "\n").utf8)) }

    static func print(_ json: JSON) { write(json.encoded() + [UInt8(ascii: "\n")]) }

    /// Prints bytes of data as they are.
    static func write(_ bytes: [UInt8]) {
        if !StandardStream.output.write(bytes) { Glibc.exit(ServiceSupport.ExitCode.success.rawValue) }
    }

    /// Says something to the person at the terminal.
    static func say(_ line: String) { StandardStream.error.write(Array((line + "\n").utf8)) }

    /// Columns of a table or a line: what the terminal has, else 80.
    static var width: Int {
        var size = winsize()
        guard StandardStream.output.isTerminal, unsafe ioctl(1, UInt(TIOCGWINSZ), &size) == 0, size.ws_col >= 40 else {
            return 80
        }
        return Int(size.ws_col)
    }
}

/// Colour where a person sees it: on a terminal, unless NO_COLOR is set.
struct Paint: Sendable {
    enum Colour: String {
        case red = "31", green = "32", yellow = "33", blue = "34", grey = "90"
    }

    let isOn: Bool

    init(_ stream: StandardStream) {
        let isPlain = HostInfo.environmentVariable("TERM") == "dumb"
        let isUnwanted = !(HostInfo.environmentVariable("NO_COLOR") ?? "").isEmpty
        isOn = stream.isTerminal && !isPlain && !isUnwanted
    }

    init(isOn: Bool) { self.isOn = isOn }

    func callAsFunction(_ text: String, _ colour: Colour?) -> String {
        guard isOn, let colour else { return text }
        return "\u{1B}[\(colour.rawValue)m\(text)\u{1B}[0m"
    }

    static func colour(of state: JobState) -> Colour? {
        switch state {
        case .done: .green
        case .failed, .rejected: .red
        case .cancelled, .retry, .waitingGPU: .yellow
        case .running, .scheduled: .blue
        case .enqueued: nil
        }
    }
}

/// Ends the program with a code and without a word: what there was to say has been said.
func quietExit(_ code: ServiceSupport.ExitCode) -> ArgumentParser.ExitCode { ArgumentParser.ExitCode(code.rawValue) }
