import ArgumentParser
import JobModel
import ServiceSupport

struct ShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Shows what is known of a job.",
        discussion: "Example:\n  maestroctl show 01jd2v8k5m"
    )

    @OptionGroup var pool: PoolOptions
    @Argument(help: ArgumentHelp("The jobs.", valueName: "ID"))
    var ids: [JobID]
    @Flag(help: "Print the records as JSON, one a line.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        let paint = Paint(.output)
        for (index, id) in ids.enumerated() {
            let stored = try await client.record(id)
            if json {
                Console.write(stored.record.encoded() + [UInt8(ascii: "\n")])
            } else {
                if index > 0 { Console.print("") }
                for line in JobText.details(of: stored, paint: paint) { Console.print(line) }
            }
        }
        await client.close()
    }
}
