module soloist.testbed/spread

go 1.21
